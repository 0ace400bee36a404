/** A relative's picture of whom it may see, kept true by the stream. */
import { computed, onScopeDispose, reactive, shallowReactive, shallowRef, watch } from 'vue'
import {
  ApiError,
  Unreachable,
  call,
  list,
  serverNow,
  type Alarm,
  type AlarmFrame,
  type Frame,
  type State,
  type User,
} from '../api'
import { EMPTY, applyFrame, applySnapshot, closed, pending } from '../board'
import type { Answers, SeenResident, Status } from '../openapi'
import { sessionEnded } from '../session'
import { Stream } from '../stream'
import { stateOf, watchOf } from '../wall'
import { keep, kept } from './kept'

const RECONCILE_MS = 60_000
const RETRY_MS = 3_000

export type Relatives = ReturnType<typeof useRelatives>

export interface Relative {
  resident: SeenResident
  status: Status | undefined
  state: State
  alarms: Alarm[]
  /** What this relative may see of whom, by consent. */
  scopes: readonly string[]
}

/** Follow everybody whom this user may see. */
export function useRelatives(user: User) {
  const board = shallowRef(EMPTY)
  const alarms_read = shallowRef(false)
  const residents = shallowRef<SeenResident[] | null>(null)
  const scopes = shallowRef<Record<string, readonly string[]>>({})
  const statuses = shallowReactive(new Map<string, Status>())
  const fault = shallowRef<string | null>(null)
  const connection = reactive({ is_up: false, was_up: false, heard_at: serverNow() })

  const relatives = computed<Relative[] | null>(
    () =>
      residents.value?.map((resident) => {
        const status = statuses.get(resident.id)
        const alarms = pending(board.value).filter(({ resident_id }) => resident_id === resident.id)
        return {
          resident,
          status,
          alarms,
          state: stateOf(status, alarms, watchOf(status, [], alarms)),
          scopes: scopes.value[resident.id] ?? [],
        }
      }) ?? null,
  )
  const over = computed(() => closed(board.value))

  const stream = new Stream({
    cursor: () => board.value.cursor,
    frame: receive,
    connected(is_up) {
      connection.is_up = is_up
      if (!is_up) return
      connection.was_up = true
      void read()
    },
    ended: sessionEnded,
  })
  const timer = setInterval(() => connection.is_up && void read(), RECONCILE_MS)
  stream.start()
  onScopeDispose(() => {
    stream.stop()
    clearInterval(timer)
    clearTimeout(again)
  })

  const readings = new Set<AlarmFrame[]>()

  function receive(frame: Frame): void {
    connection.heard_at = serverNow()
    switch (frame.type) {
      case 'ready':
        board.value = { ...board.value, cursor: board.value.cursor ?? frame.cursor }
        break
      case 'resync':
        board.value = { ...board.value, cursor: null }
        void read()
        break
      case 'alarm':
        board.value = applyFrame(board.value, frame)
        for (const since of readings) since.push(frame)
        stream.send({ type: 'received', cursor: frame.cursor })
        break
      case 'status':
        heard.set(frame.resident_id, performance.now())
        statuses.set(frame.resident_id, frame as unknown as Status)
        break
      case 'ping':
        break
    }
  }

  const heard = new Map<string, number>()
  let again: ReturnType<typeof setTimeout> | undefined

  /** Read everything afresh, while frames go on being applied: they are laid over what was read. */
  async function read(): Promise<void> {
    const since: AlarmFrame[] = []
    readings.add(since)
    clearTimeout(again)
    try {
      const [me, all] = await Promise.all([
        call<Answers['GET /me']>('GET', '/me'),
        list<SeenResident>('/residents'),
      ])
      scopes.value = me.family
      const sees_alarms = Object.values(me.family).some((sides) => sides.includes('alarms'))
      const [open, done] = sees_alarms
        ? await Promise.all([
            list<Alarm>('/alarms?handling=open,acknowledged,on_site'),
            list<Alarm>('/alarms?handling=closed', 30),
          ])
        : [[], []]
      board.value = applySnapshot(board.value, [...done, ...open], since)
      alarms_read.value = true
      await Promise.all(all.map(({ id }) => readStatus(id)))
      residents.value = all
      fault.value = null
    } catch (error) {
      fault.value = told(error)
      again = setTimeout(() => connection.is_up && void read(), RETRY_MS)
    } finally {
      readings.delete(since)
    }
  }

  async function readStatus(id: string): Promise<void> {
    const asked_at = performance.now()
    try {
      const status = await call<Status>('GET', `/residents/${id}/status`)
      // A frame that came while this answer was on its way is newer than it.
      if ((heard.get(id) ?? -1) < asked_at) statuses.set(id, status)
    } catch (error) {
      // The consent ended since the list was read.
      if (!(error instanceof ApiError && error.status === 404)) throw error
    }
  }

  function told(error: unknown): string {
    if (error instanceof ApiError) {
      if (error.status === 401) sessionEnded()
      return error.message || String(error.status)
    }
    if (error instanceof Unreachable) return ''
    throw error
  }

  // Only what is known to be so now is kept, with the moment it was known.
  watch(
    () => (connection.is_up ? relatives.value : null),
    (now_known) => {
      if (now_known === null) return
      keep({
        user,
        at_ms: serverNow(),
        relatives: now_known.map(({ resident, status, state }) => ({
          id: resident.id,
          name: resident.name,
          state,
          since: status?.since ?? null,
          heard_at: status?.heard_at ?? null,
        })),
      })
    },
  )

  return { relatives, over, alarms_read, connection, fault, read, remembered: kept() }
}
