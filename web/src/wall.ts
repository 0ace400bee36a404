/** What a bed's card shows, worked out from what is known; pure. */
import type { Alarm, Device, Latest, Monitoring, Place, Resident, State, Status } from './api'
import { isMoreUrgent } from './board'

const SECOND = 1000
const MINUTE = 60 * SECOND

/** A value from a stream older than this is greyed. */
export const STALE_MS = 60 * SECOND
/** A value older than this says nothing about now and is not shown as a reading. */
const GONE_MS: Record<string, number> = {
  hr: 15 * MINUTE,
  rr: 15 * MINUTE,
  spo2: 15 * MINUTE,
  temp: 720 * MINUTE,
}

export interface Reading {
  value: number
  age_ms: number
  stale: boolean
}

/** The value of a metric as a current reading, or null where there is none fit to show. */
export function reading(status: Status | undefined, metric: string, now_ms: number): Reading | null {
  const latest: Latest | undefined = status?.latest[metric]
  if (!latest || typeof latest.value !== 'number') return null
  const age_ms = Math.max(0, now_ms - Date.parse(latest.at))
  const gone_ms = GONE_MS[metric] ?? 15 * MINUTE
  if (age_ms > gone_ms) return null
  const stale_ms = metric === 'temp' ? gone_ms : STALE_MS
  return { value: latest.value, age_ms, stale: age_ms > stale_ms }
}

/** Age of the newest value of any kind; null when nothing was ever received. */
export function newestAge(status: Status | undefined, now_ms: number): number | null {
  const times = Object.values(status?.latest ?? {}).map((latest) => Date.parse(latest?.at ?? ''))
  const newest = Math.max(...times.filter((at) => !Number.isNaN(at)))
  return Number.isFinite(newest) ? Math.max(0, now_ms - newest) : null
}

/** How a bed is monitored: `never` was anything heard, `partly` says that one of several is missed. */
export type Watch = Monitoring | 'never' | 'partly'

const MISSED: readonly Watch[] = ['network-error', 'sensor-error']
const BLIND: readonly Watch[] = [...MISSED, 'undeployed', 'never']

/** The platform's word on a resident's devices, and worse where one of them is missed; null: not told yet. */
export function watchOf(status: Status | undefined, devices: Device[], alarms: Alarm[]): Watch | null {
  if (!status) return null
  const { monitoring, state, latest } = status
  if (monitoring === 'undeployed') return monitoring
  // The list of devices is older than the status, which may have heard the first of them since.
  const may_be_new = state !== 'well' && Object.keys(latest).length === 0
  if (may_be_new && devices.length > 0 && devices.every(isNeverHeard)) return 'never'
  if (MISSED.includes(monitoring)) return monitoring
  const is_missed =
    devices.some((device) => MISSED.includes(device.monitoring)) ||
    alarms.some(({ kind, condition }) => isOfDevices(kind) && condition === 'present')
  return is_missed ? 'partly' : monitoring
}

/** Nothing tells how the person is. */
export function isBlind(watch: Watch | null): boolean {
  return watch !== null && BLIND.includes(watch)
}

/** What a device sent for somebody else before is no sign of life here. */
export function isNeverHeard({ heard_at, assigned_since }: Device): boolean {
  return heard_at === null || (assigned_since !== null && Date.parse(heard_at) <= Date.parse(assigned_since))
}

/** An alarm of this kind tells that devices are missed, or are heard again. */
export function isOfDevices(kind: string): boolean {
  return kind === 'device_silent' || kind === 'device_fault'
}

/** The state to show: the platform's word, or worse where an alarm has come since it spoke.
 *
 * A bed that is not watched, or only in part, is never well.
 */
export function stateOf(status: Status | undefined, alarms: Alarm[], watch: Watch | null): State {
  const present = alarms.filter((alarm) => alarm.condition === 'present')
  const known = status?.state ?? 'unknown'
  const isEmergency = (alarm: Alarm) =>
    alarm.priority === 'high' && ['emergency', 'physiological', 'safety'].includes(alarm.class)
  if (known === 'emergency' || present.some(isEmergency)) return 'emergency'
  if (known === 'attention' || present.some((alarm) => alarm.priority !== 'low')) return 'attention'
  if (known === 'well' && isBlind(watch)) return 'unknown'
  if (known === 'well' && watch === 'partly') return 'attention'
  return known
}

/** The alarm that a card names: the most urgent, and of those one that nobody has answered. */
export function foremost(alarms: Alarm[]): Alarm | null {
  return alarms.reduce<Alarm | null>((best, alarm) => {
    if (best === null || isMoreUrgent(alarm.priority, best.priority)) return alarm
    if (isMoreUrgent(best.priority, alarm.priority)) return best
    return best.handling !== 'open' && alarm.handling === 'open' ? alarm : best
  }, null)
}

const WORST_FIRST: Record<State, number> = { emergency: 0, attention: 1, unknown: 2, well: 3 }

export interface Bed {
  resident: Resident
  label: string
  state: State
  watch: Watch | null
}

/** Beds by their label as people count (2 before 10), or problems first. */
export function inOrder(beds: Bed[], urgent_first: boolean): Bed[] {
  const byLabel = new Intl.Collator('zh-CN', { numeric: true })
  return [...beds].sort(
    (a, b) =>
      (urgent_first ? WORST_FIRST[a.state] - WORST_FIRST[b.state] : 0) ||
      byLabel.compare(a.label, b.label) ||
      byLabel.compare(a.resident.name, b.resident.name),
  )
}

export type Places = ReadonlyMap<string, Place>

/** From the outermost place to this one. */
export function pathOf(places: Places, id: string | null): Place[] {
  const path: Place[] = []
  let place = id === null ? undefined : places.get(id)
  while (place && !path.includes(place)) {
    path.unshift(place)
    place = place.parent_id === null ? undefined : places.get(place.parent_id)
  }
  return path
}

/** What a bed is called on the wall: its room and bed ("201-1"), or the home. */
export function bedLabel(places: Places, id: string | null): string {
  const path = pathOf(places, id)
  const last = path.at(-1)
  const room = path.at(-2)
  if (!last) return ''
  if (last.kind !== 'bed' || room?.kind !== 'room') return last.name
  // A bed numbered within its room; one that carries the room's name already needs no prefix.
  if (last.name.startsWith(room.name)) return last.name
  return `${room.name}-${last.name.replace(/\s*(号床|床|号)$/, '')}`
}

/** Where to run to: the last places of the path, the wider ones being known to everybody. */
export function whereabouts(places: Places, id: string | null): string {
  return pathOf(places, id)
    .slice(-3)
    .map((place) => place.name)
    .join(' · ')
}

export interface Grid {
  columns: number
  width: number
  height: number
}

const SHAPE = 1.95 // Width to height of a card that its contents fill well.
const GAP = 6
const SMALLEST = { width: 150, height: 86 }
const LARGEST = { width: 380, height: 200 }

/** The columns that make `count` cards in this area as large as they can be, in pixels. */
export function fit(count: number, width: number, height: number): Grid {
  let best: Grid = { columns: 1, width: SMALLEST.width, height: SMALLEST.height }
  let best_scale = 0
  const most = Math.max(1, Math.floor((width + GAP) / (SMALLEST.width + GAP)))
  for (let columns = 1; columns <= Math.min(most, Math.max(count, 1)); columns++) {
    const rows = Math.ceil(count / columns)
    const wide = Math.min(LARGEST.width, (width - GAP * (columns - 1)) / columns)
    const high = Math.min(LARGEST.height, (height - GAP * (rows - 1)) / rows)
    const scale = Math.min(wide, Math.max(high, SMALLEST.height) * SHAPE)
    if (high >= SMALLEST.height && scale > best_scale) {
      best_scale = scale
      best = { columns, width: wide, height: high }
    }
  }
  if (best_scale > 0) return best
  // They do not fit: as many columns as there is room for, and the wall scrolls.
  return { columns: most, width: (width - GAP * (most - 1)) / most, height: SMALLEST.height }
}
