/** The station's picture of its residents and alarms, kept true by the stream. */
import { computed, onScopeDispose, reactive, ref, shallowReactive, shallowRef, watch } from 'vue'
import {
  ApiError,
  Unreachable,
  call,
  list,
  serverNow,
  type Action,
  type Alarm,
  type AlarmFrame,
  type Device,
  type Frame,
  type Outcome,
  type Place,
  type Resident,
  type SelfTest,
  type Status,
  type Vitals,
} from './api'
import {
  EMPTY,
  applyAnswer,
  applyFrame,
  applySnapshot,
  audible,
  closed,
  isSelfTest,
  pending,
} from './board'
import { now } from './clock'
import { useDuty } from './duty'
import { sessionEnded } from './session'
import * as sound from './sound'
import { Stream } from './stream'
import { ON_MY_WAY, wayOf, type TimelineLine, type Way } from './timeline'
import { isOfDevices } from './wall'

const MOST_RESIDENTS = 300
const CLOSED_SHOWN = 12
const RECONCILE_MS = 60_000
const PEOPLE_MS = 300_000
const RETRY_MS = 2_000
const LOOK_MS = 1_000
export const TREND_MS = 30 * 60_000

export type Point = [at_ms: number, value: number]
export type Fault = { status: number; detail: string }
export type Station = ReturnType<typeof useStation>

/** Follow everything this user may see; `keeps_watch`: whether the screen can be a station on duty. */
export function useStation(username: string, keeps_watch: boolean) {
  const board = shallowRef(EMPTY)
  const alarms_read = ref(false)
  const residents = shallowRef<Resident[] | null>(null)
  const places = shallowRef<ReadonlyMap<string, Place>>(new Map())
  const people_fault = shallowRef<Fault | null>(null)
  const alarms_fault = shallowRef<Fault | null>(null)
  const statuses = shallowReactive(new Map<string, Status>())
  const trends = shallowReactive(new Map<string, Point[]>())
  const devices = shallowReactive(new Map<string, Device[]>())
  const connection = reactive({ is_up: false, was_up: false, heard_at: serverNow() })
  const newest = shallowRef<Alarm | null>(null)

  const alarms = computed(() => pending(board.value))
  const recent = computed(() => closed(board.value).slice(0, CLOSED_SHOWN))
  const loudest = computed(() => audible(alarms.value, now.value))
  watch(loudest, sound.sound, { immediate: true })

  const timers = [
    setInterval(() => connection.is_up && void readAlarms(), RECONCILE_MS),
    setInterval(() => connection.is_up && void readPeople(), PEOPLE_MS),
    setInterval(() => connection.is_up && void readSelfTests(), RECONCILE_MS),
  ]
  const stream = new Stream({
    cursor: () => board.value.cursor,
    frame: receive,
    connected(is_up) {
      connection.is_up = is_up
      if (!is_up) return
      connection.was_up = true
      void readAlarms()
      void readPeople()
      void readSelfTests()
      sendReceipts()
      duty.report()
    },
    ended: sessionEnded,
  })
  const duty = useDuty(keeps_watch ? username : null, (frame) => connection.is_up && stream.send(frame))
  stream.start()
  onScopeDispose(() => {
    stream.stop()
    timers.forEach(clearInterval)
    clearTimeout(looking)
    sound.sound(null)
  })

  function receive(frame: Frame): void {
    connection.heard_at = serverNow()
    duty.tick()
    switch (frame.type) {
      case 'ready':
        // A kept cursor stays: what came after it is still to be sent.
        board.value = { ...board.value, cursor: board.value.cursor ?? frame.cursor }
        break
      case 'resync':
        board.value = { ...board.value, cursor: null }
        ways.clear()
        void readAlarms()
        break
      case 'alarm':
        receiveAlarm(frame)
        break
      case 'status':
        keepStatus(frame.resident_id, frame)
        break
      case 'ping':
        break
    }
  }

  // ---- alarms

  const readings = new Set<AlarmFrame[]>()

  function receiveAlarm(frame: AlarmFrame): void {
    const before = board.value
    board.value = applyFrame(before, frame)
    for (const since of readings) since.push(frame)
    stream.send({ type: 'received', cursor: frame.cursor })
    if (before === board.value) return
    if (isSelfTest(frame.alarm)) {
      receiveSelfTest(frame)
      return
    }
    followWay(frame)
    if (frame.change === 'raised' || frame.change === 'priority') newest.value = frame.alarm
    const { resident_id } = frame.alarm
    if (isOfDevices(frame.alarm.kind)) lookAtDevices(resident_id)
    if (resident_id && residents.value && !residents.value.some(({ id }) => id === resident_id)) {
      void readPeople()
    }
  }

  /** Read the alarms afresh, while frames go on being applied: they are laid over what was read. */
  async function readAlarms(): Promise<void> {
    const since: AlarmFrame[] = []
    readings.add(since)
    try {
      const [open, over] = await Promise.all([
        list<Alarm>('/alarms?handling=open,acknowledged,on_site'),
        list<Alarm>('/alarms?handling=closed', CLOSED_SHOWN),
      ])
      board.value = applySnapshot(board.value, [...over, ...open], since)
      alarms_read.value = true
      alarms_fault.value = null
    } catch (error) {
      alarms_fault.value = faultOf(error)
      if (connection.is_up) setTimeout(() => connection.is_up && void readAlarms(), RETRY_MS)
    } finally {
      readings.delete(since)
    }
  }

  /** Take one step of an alarm; returns null when it is done, else what went wrong. */
  async function act(
    alarm: Alarm,
    action: Action,
    body?: { outcome: Outcome; note: string } | { text: string },
  ): Promise<Fault | null> {
    const until = new Date(now.value + 30 * 60_000).toISOString()
    try {
      const answer = await call<Partial<Alarm> | undefined>(
        'POST',
        `/alarms/${alarm.id}/${action}`,
        action === 'snooze' ? { until } : (body ?? {}),
      )
      keepAnswer(answer)
      if (body && 'text' in body && body.text === ON_MY_WAY) {
        ways.set(alarm.id, { actor: username, at: new Date(serverNow()).toISOString() })
      }
      return null
    } catch (error) {
      const fault = faultOf(error)
      if (fault.status === 409) keepAnswer(await call<Alarm>('GET', `/alarms/${alarm.id}`).catch(() => undefined))
      return fault
    }
  }

  /** Read one alarm that may be over; a fault of 404 says that it is not there for this user. */
  async function readAlarm(id: string): Promise<Alarm | Fault> {
    try {
      return await call<Alarm>('GET', `/alarms/${encodeURIComponent(id)}`)
    } catch (error) {
      return faultOf(error)
    }
  }

  function keepAnswer(answer: Partial<Alarm> | undefined): void {
    if (answer?.id && answer.handling && answer.actions) {
      board.value = applyAnswer(board.value, answer as Alarm)
    }
  }

  // ---- who is on the way: a line of the timeline, read where it may have been written

  const ways = shallowReactive(new Map<string, Way | null>())
  const asked_ways = new Map<string, symbol>()

  function followWay({ change, alarm }: AlarmFrame): void {
    if (change === 'note') void readWay(alarm.id)
    else if (change === 'acknowledged') ways.set(alarm.id, null)
    else if (alarm.handling === 'closed') ways.delete(alarm.id)
  }

  async function readWay(id: string): Promise<void> {
    const mine = Symbol(id)
    asked_ways.set(id, mine)
    try {
      const lines = await list<TimelineLine>(`/alarms/${id}/timeline`)
      // Of two answers that overtake each other the one asked for later is right.
      if (asked_ways.get(id) === mine) ways.set(id, wayOf(lines))
    } catch (error) {
      faultOf(error) // The alarm itself is shown all the same; the next note reads again.
    }
  }

  watch(alarms, (shown) => {
    for (const { id, handling } of shown) {
      if (handling !== 'acknowledged' || ways.has(id)) continue
      ways.set(id, null)
      void readWay(id)
    }
  })

  // ---- receipts: an alarm counts as displayed when its row has been on the screen

  const displayed = new Set<string>()
  const unsent = new Set<string>()

  function noteDisplayed(alarm: Alarm): void {
    const key = `${alarm.id} ${alarm.priority}`
    if (displayed.has(key)) return
    displayed.add(key)
    unsent.add(alarm.id)
    sendReceipts()
  }

  function sendReceipts(): void {
    if (!connection.is_up) return
    for (const alarm_id of unsent) {
      if (stream.send({ type: 'displayed', alarm_id })) unsent.delete(alarm_id)
    }
  }

  // ---- the platform's test of its own way to this screen

  const tested_at = ref<number | null>(null)

  function receiveSelfTest(frame: AlarmFrame): void {
    if (frame.alarm.handling === 'closed') void readSelfTests()
    // A page that nobody can see has not shown it.
    else if (document.visibilityState === 'visible') noteDisplayed(frame.alarm)
  }

  async function readSelfTests(): Promise<void> {
    try {
      const runs = await list<SelfTest>('/self-tests', 10)
      const shown = runs.flatMap(({ displayed_at }) => (displayed_at ? [Date.parse(displayed_at)] : []))
      tested_at.value = shown.length ? Math.max(...shown) : null
    } catch (error) {
      faultOf(error) // Its age goes on growing on the screen, which is what has to be seen.
    }
  }

  // ---- residents and their values

  const heard = new Map<string, number>()
  let reading_people = false

  async function readPeople(): Promise<void> {
    if (reading_people) return
    reading_people = true
    try {
      const [all_places, all_residents] = await Promise.all([
        list<Place>('/places'),
        list<Resident>('/residents', MOST_RESIDENTS),
      ])
      places.value = new Map(all_places.map((place) => [place.id, place]))
      residents.value = all_residents
      people_fault.value = null
      await readDevices()
      await each(all_residents, 6, ({ id }) => readStatus(id))
      const unseen = all_residents.filter(({ id }) => !trends.has(id))
      await each(unseen, 3, ({ id }) => readTrend(id))
    } catch (error) {
      people_fault.value = faultOf(error)
      setTimeout(() => connection.is_up && void readPeople(), 5 * RETRY_MS)
    } finally {
      reading_people = false
    }
  }

  /** Read the devices of one resident or of all: what the state of a person cannot tell of each. */
  async function readDevices(resident_id?: string): Promise<void> {
    const of = new Map<string, Device[]>()
    for (const device of await list<Device>(
      resident_id === undefined ? '/devices' : `/devices?resident_id=${resident_id}`,
    )) {
      if (device.resident_id === null) continue
      of.set(device.resident_id, [...(of.get(device.resident_id) ?? []), device])
    }
    const asked = resident_id === undefined ? [...new Set([...devices.keys(), ...of.keys()])] : [resident_id]
    for (const id of asked) devices.set(id, of.get(id) ?? [])
  }

  let looking: ReturnType<typeof setTimeout> | undefined
  let look_at_all = false

  /** A device is missed or back; many that are lost at once are looked at once. */
  function lookAtDevices(resident_id: string | null): void {
    look_at_all ||= resident_id === null
    clearTimeout(looking)
    looking = setTimeout(() => {
      const all = look_at_all
      look_at_all = false
      void (all ? readPeople() : readDevices().catch(faultOf))
    }, LOOK_MS)
  }

  async function readStatus(id: string): Promise<void> {
    const asked_at = performance.now()
    try {
      const status = await call<Status>('GET', `/residents/${id}/status`)
      // A frame that came while this answer was on its way is newer than it.
      if ((heard.get(id) ?? -1) < asked_at) keepStatus(id, status)
    } catch (error) {
      // The resident has moved out of sight since the list was read.
      if (!(error instanceof ApiError && error.status === 404)) throw error
    }
  }

  function keepStatus(id: string, status: Status): void {
    heard.set(id, performance.now())
    statuses.set(id, status)
    const hr = status.latest.hr
    if (!hr || typeof hr.value !== 'number') return
    const at = Date.parse(hr.at)
    const points = trends.get(id)
    if (!points || at <= (points.at(-1)?.[0] ?? 0)) return
    trends.set(id, [...points.filter(([t]) => t > at - TREND_MS), [at, hr.value]])
  }

  async function readTrend(id: string): Promise<void> {
    const from = new Date(now.value - TREND_MS).toISOString()
    const vitals = await call<Vitals>(
      'GET',
      `/residents/${id}/vitals?from=${encodeURIComponent(from)}&step=60`,
    )
    trends.set(id, (vitals.hr ?? []).map(([t, mean]) => [t, mean]))
  }

  return {
    alarms,
    alarms_fault,
    alarms_read,
    recent,
    loudest,
    newest,
    residents,
    places,
    people_fault,
    statuses,
    trends,
    devices,
    connection,
    duty,
    tested_at,
    ways,
    act,
    noteDisplayed,
    readAlarm,
    readDevices,
    readPeople,
    most_residents: MOST_RESIDENTS,
  }
}

function faultOf(error: unknown): Fault {
  if (error instanceof ApiError) {
    if (error.status === 401) sessionEnded()
    return { status: error.status, detail: error.message }
  }
  if (error instanceof Unreachable) return { status: 0, detail: '' }
  throw error
}

/** Do some work for each item, so many at once. */
export async function each<Item>(items: Item[], at_once: number, work: (item: Item) => Promise<void>) {
  const rest = items.values()
  await Promise.all(
    Array.from({ length: at_once }, async () => {
      for (const item of rest) await work(item)
    }),
  )
}
