import { describe, expect, it } from 'vitest'
import type { Alarm, Device, Status } from './api'
import { endOf, isOfShift, outsideUsual, poorly } from './handover'
import type { TimelineLine } from './timeline'

const NOW = Date.parse('2026-03-01T08:00:00Z')
const at = (minutes_ago: number) => new Date(NOW - minutes_ago * 60_000).toISOString()

describe('the hand-over sheet', () => {
  const alarm = { id: '1', handling: 'closed', last_at: at(700), owner: 'li' } as Alarm
  const closed = { id: '9', at: at(30), change: 'closed', actor: 'wang', channel: null, note: '扶起' } as TimelineLine

  it('tells an alarm that began before the shift and ended in it, and none that ended before', () => {
    const from = NOW - 8 * 3_600_000
    expect(isOfShift({ alarm, lines: [closed] }, from)).toBe(true)
    expect(isOfShift({ alarm, lines: [{ ...closed, at: at(500) }] }, from)).toBe(false)
    expect(isOfShift({ alarm: { ...alarm, handling: 'acknowledged' }, lines: null }, from)).toBe(true)
  })

  it('names who ended it, and what they wrote', () => {
    expect(endOf({ alarm, lines: [closed] })).toMatchObject({ by: 'wang', notes: [{ note: '扶起' }] })
    expect(endOf({ alarm, lines: null })).toEqual({ by: 'li', notes: [] })
  })

  it('tells values outside what is usual, as long as they are of now', () => {
    const status = { latest: { hr: { value: 96, at: at(1) }, rr: { value: 30, at: at(60) } } } as unknown as Status
    const usual = { hr: { low: 60, high: 80 }, rr: { low: 10, high: 18 }, spo2: { low: 94, high: 99 } }
    expect(outsideUsual(status, usual, NOW)).toEqual([{ metric: 'hr', value: 96, low: 60, high: 80 }])
    expect(outsideUsual(status, { hr: { low: 60, high: 96 } }, NOW)).toEqual([])
  })

  it('tells devices that are silent or soon empty', () => {
    const mat = { id: 'mat', heard_at: at(1), assigned_since: at(9000), battery: 80, monitoring: 'present' } as Device
    const all = [
      mat,
      { ...mat, id: 'empty', battery: 5 },
      { ...mat, id: 'silent', monitoring: 'network-error' as const },
      { ...mat, id: 'never', heard_at: null },
      { ...mat, id: 'wired', battery: null },
    ]
    expect(poorly(all).map(({ id }) => id)).toEqual(['empty', 'silent', 'never'])
  })
})
