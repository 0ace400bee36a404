/** What one shift tells the next, worked out from what the station knows; pure. */
import type { Alarm, Device, Status } from './api'
import { notesOf, type TimelineLine } from './timeline'
import { isNeverHeard, reading } from './wall'

/** An alarm with its timeline; null where that could not be read. */
export interface Told {
  alarm: Alarm
  lines: TimelineLine[] | null
}

/** Whether an alarm belongs on the sheet: it is not over, or ended in this shift. */
export function isOfShift({ alarm, lines }: Told, from_ms: number): boolean {
  if (alarm.handling !== 'closed') return true
  const end = lines?.findLast(({ change }) => change === 'closed')?.at ?? alarm.last_at
  return Date.parse(end) >= from_ms
}

/** Who ended an alarm and what was written about it. */
export function endOf({ alarm, lines }: Told): { by: string | null; notes: TimelineLine[] } {
  const end = lines?.findLast(({ change }) => change === 'closed')
  return { by: end?.actor ?? alarm.owner, notes: notesOf(lines ?? []) }
}

export interface Odd {
  metric: string
  value: number
  low: number
  high: number
}

/** Present values outside what is usual for this person. */
export function outsideUsual(
  status: Status | undefined,
  usual: Partial<Record<string, { low: number; high: number }>>,
  now_ms: number,
): Odd[] {
  return Object.entries(usual).flatMap(([metric, band]) => {
    const seen = reading(status, metric, now_ms)
    if (!seen || !band || (seen.value >= band.low && seen.value <= band.high)) return []
    return [{ metric, value: seen.value, low: band.low, high: band.high }]
  })
}

const BATTERY_LOW = 20

/** Devices that the next shift must look at: not heard, not measuring, or soon empty. */
export function poorly(devices: Device[]): Device[] {
  return devices.filter(
    (device) =>
      isNeverHeard(device) ||
      device.monitoring === 'network-error' ||
      device.monitoring === 'sensor-error' ||
      (device.battery !== null && device.battery < BATTERY_LOW),
  )
}
