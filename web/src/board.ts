/** The alarms on the screen, as a pure function of what the server said.
 *
 * The stream is in order and each frame carries the whole alarm, so a frame at or before the
 * board's cursor is a repeat and any other one is the newest word on its alarm. A snapshot may run
 * ahead of the stream, therefore a frame that is plainly older than a snapshot's alarm is passed
 * over until the stream has caught up with it.
 */
import type { Alarm, AlarmFrame, Handling, Priority } from './api'

interface Entry {
  alarm: Alarm
  ahead: boolean // True while the alarm is known from a snapshot only.
}

export interface Board {
  cursor: number | null
  entries: ReadonlyMap<string, Entry>
}

const RANK: Record<Handling, number> = { open: 0, acknowledged: 1, on_site: 2, closed: 3 }
const URGENCY: Record<Priority, number> = { high: 3, medium: 2, low: 1 }
const KEPT_CLOSED = 12

/** The mark of a priority, the same on every screen and in print. */
export const MARKS: Record<Priority, string> = { high: '!!!', medium: '!!', low: '!' }

export const EMPTY: Board = { cursor: null, entries: new Map() }

/** The platform's own test of the alarm's way: it is shown as proof, never as an alarm. */
export function isSelfTest(alarm: Alarm): boolean {
  return alarm.detail.selftest === true && alarm.resident_id === null
}

export function applyFrame(board: Board, frame: AlarmFrame): Board {
  if (board.cursor !== null && frame.cursor <= board.cursor) return board
  const have = board.entries.get(frame.alarm.id)
  const entries = new Map(board.entries)
  if (isSelfTest(frame.alarm)) return { ...board, cursor: frame.cursor }
  if (!(have?.ahead && isOlder(frame.alarm, have.alarm))) {
    entries.set(frame.alarm.id, { alarm: frame.alarm, ahead: false })
  }
  return { cursor: frame.cursor, entries: forgetOldClosed(entries) }
}

/** Put a freshly read list in place of the board, then what the stream said since it was asked for. */
export function applySnapshot(board: Board, alarms: Alarm[], since: AlarmFrame[]): Board {
  const entries = new Map<string, Entry>(
    alarms.filter((alarm) => !isSelfTest(alarm)).map((alarm) => [alarm.id, { alarm, ahead: true }]),
  )
  const first = since[0]
  let fresh: Board = { cursor: first ? first.cursor - 1 : null, entries: forgetOldClosed(entries) }
  for (const frame of since) fresh = applyFrame(fresh, frame)
  return { cursor: board.cursor, entries: fresh.entries }
}

/** What an action's own answer said; the stream will say the same a moment later. */
export function applyAnswer(board: Board, alarm: Alarm): Board {
  const have = board.entries.get(alarm.id)
  if (have && isOlder(alarm, have.alarm)) return board
  const entries = new Map(board.entries).set(alarm.id, { alarm, ahead: true })
  return { cursor: board.cursor, entries: forgetOldClosed(entries) }
}

/** Alarms somebody still has to deal with: by priority, unowned first, then the oldest first. */
export function pending(board: Board): Alarm[] {
  return [...board.entries.values()]
    .map((entry) => entry.alarm)
    .filter((alarm) => alarm.handling !== 'closed')
    .sort(
      (a, b) =>
        URGENCY[b.priority] - URGENCY[a.priority] ||
        Math.min(RANK[a.handling], 1) - Math.min(RANK[b.handling], 1) ||
        Date.parse(a.raised_at) - Date.parse(b.raised_at) ||
        Number(a.id) - Number(b.id),
    )
}

/** The alarms closed last, newest first. */
export function closed(board: Board): Alarm[] {
  return [...board.entries.values()]
    .map((entry) => entry.alarm)
    .filter((alarm) => alarm.handling === 'closed')
    .sort((a, b) => Date.parse(b.last_at) - Date.parse(a.last_at) || Number(b.id) - Number(a.id))
}

/** The priority that must be heard now: the highest that nobody has answered. */
export function audible(alarms: Alarm[], now_ms: number): Priority | null {
  const open = alarms.filter(
    (alarm) =>
      alarm.handling === 'open' && !(alarm.snoozed_until && Date.parse(alarm.snoozed_until) > now_ms),
  )
  return open.reduce<Priority | null>(
    (loudest, { priority }) =>
      loudest === null || URGENCY[priority] > URGENCY[loudest] ? priority : loudest,
    null,
  )
}

export function isMoreUrgent(a: Priority, b: Priority): boolean {
  return URGENCY[a] > URGENCY[b]
}

function isOlder(a: Alarm, b: Alarm): boolean {
  return (
    RANK[a.handling] < RANK[b.handling] ||
    a.count < b.count ||
    Date.parse(a.last_at) < Date.parse(b.last_at) ||
    URGENCY[a.priority] < URGENCY[b.priority]
  )
}

function forgetOldClosed(entries: Map<string, Entry>): Map<string, Entry> {
  const over = [...entries.values()].filter((entry) => entry.alarm.handling === 'closed')
  over.sort((a, b) => Date.parse(b.alarm.last_at) - Date.parse(a.alarm.last_at))
  for (const entry of over.slice(KEPT_CLOSED)) entries.delete(entry.alarm.id)
  return entries
}
