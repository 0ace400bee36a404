import { describe, expect, it } from 'vitest'
import type { Alarm, Device, Place, Status } from './api'
import { bedLabel, fit, foremost, newestAge, reading, stateOf, watchOf } from './wall'

const NOW = Date.parse('2026-03-01T08:00:00Z')
const at = (seconds_ago: number) => new Date(NOW - seconds_ago * 1000).toISOString()

function status(changes: Partial<Status> = {}): Status {
  return {
    state: 'well',
    since: null,
    latest: {},
    presence: 'present',
    open_alarms: [],
    monitored: true,
    monitoring: 'present',
    ...changes,
  }
}

describe('a value on a card', () => {
  it('is fresh, then greyed, then no longer shown', () => {
    const hr = (seconds: number) =>
      reading(status({ latest: { hr: { value: 72, at: at(seconds) } } }), 'hr', NOW)
    expect(hr(10)).toMatchObject({ value: 72, stale: false })
    expect(hr(61)).toMatchObject({ value: 72, stale: true })
    expect(hr(901)).toBeNull()
  })

  it('of zero is a value, and a missing one is none', () => {
    const zero = status({ latest: { hr: { value: 0, at: at(1) } } })
    expect(reading(zero, 'hr', NOW)?.value).toBe(0)
    expect(reading(zero, 'rr', NOW)).toBeNull()
    expect(reading(undefined, 'hr', NOW)).toBeNull()
  })

  it('has the age of the newest of all', () => {
    const both = status({ latest: { hr: { value: 1, at: at(50) }, rr: { value: 1, at: at(8) } } })
    expect(newestAge(both, NOW)).toBe(8000)
    expect(newestAge(status(), NOW)).toBeNull()
  })
})

describe('the state of a bed', () => {
  const sos = { class: 'emergency', priority: 'high', condition: 'present', handling: 'open' } as Alarm

  it('is an emergency as soon as the alarm is there, before the status says so', () => {
    expect(stateOf(status(), [sos], 'present')).toBe('emergency')
  })

  it('that nothing was ever heard of is not well', () => {
    expect(stateOf(undefined, [], null)).toBe('unknown')
  })

  it('never hides what the platform says behind a lesser alarm', () => {
    expect(stateOf(status({ state: 'emergency' }), [{ ...sos, priority: 'low' }], 'present')).toBe('emergency')
  })

  it('names the most urgent alarm, and of two the one that waits', () => {
    const taken = { ...sos, id: '1', handling: 'acknowledged' } as Alarm
    const waits = { ...sos, id: '2' } as Alarm
    expect(foremost([{ ...sos, id: '0', priority: 'low' } as Alarm, taken, waits])?.id).toBe('2')
  })
})

describe('how a bed is monitored', () => {
  const mat = { assigned_since: at(7200), heard_at: at(5), monitoring: 'present' } as Device
  const hr = { hr: { value: 72, at: at(5) } }
  const shown = (told: Status, devices: Device[], alarms: Alarm[] = []) => {
    const watch = watchOf(told, devices, alarms)
    return [watch, stateOf(told, alarms, watch)]
  }

  it('is well only where every device is heard', () => {
    expect(shown(status({ latest: hr }), [mat, mat])).toEqual(['present', 'well'])
    expect(shown(status({ monitoring: 'absent' }), [mat])).toEqual(['absent', 'well'])
  })

  it.each(['network-error', 'sensor-error', 'undeployed'] as const)('is never well with %s', (monitoring) => {
    expect(shown(status({ monitoring, latest: hr }), [mat])).toEqual([monitoring, 'unknown'])
  })

  it.each(['network-error', 'sensor-error'] as const)('is in part where one of several has %s', (monitoring) => {
    expect(shown(status(), [mat, { ...mat, monitoring }])).toEqual(['partly', 'attention'])
  })

  it('is in part as soon as the alarm says so, before the devices are read again', () => {
    const silent = { kind: 'device_silent', class: 'technical', priority: 'low', condition: 'present' } as Alarm
    expect(shown(status(), [mat], [silent])).toEqual(['partly', 'attention'])
    expect(shown(status(), [mat], [{ ...silent, condition: 'recovered' }])).toEqual(['present', 'well'])
  })

  it('is told apart where nothing was ever heard, even while that is no fault yet', () => {
    const silent = status({ state: 'unknown', presence: null })
    const never = { ...mat, heard_at: null }
    expect(shown(silent, [never])).toEqual(['never', 'unknown'])
    // What it sent when somebody else had it does not count.
    expect(shown(silent, [{ ...mat, heard_at: at(9000) }])).toEqual(['never', 'unknown'])
    // The first value is newer than the list of devices.
    expect(shown(status({ latest: hr }), [never])).toEqual(['present', 'well'])
  })

  it('is not known before the platform has told', () => {
    expect(watchOf(undefined, [], [])).toBeNull()
  })
})

describe('the wall', () => {
  it.each([1, 7, 24, 48, 60])('shows %i beds on a full HD screen without scrolling', (count) => {
    const [width, height] = [1452, 1004]
    const { columns, height: card } = fit(count, width, height)
    const rows = Math.ceil(count / columns)
    expect(rows * card + (rows - 1) * 6).toBeLessThanOrEqual(height)
  })

  it('keeps cards readable where they do not all fit', () => {
    expect(fit(200, 900, 600).height).toBeGreaterThanOrEqual(86)
  })

  it('calls a bed by its room and number', () => {
    const places = new Map<string, Place>(
      [
        { id: '1', parent_id: null, kind: 'facility', name: '康宁' },
        { id: '2', parent_id: '1', kind: 'room', name: '201' },
        { id: '3', parent_id: '2', kind: 'bed', name: '1床' },
        { id: '4', parent_id: '2', kind: 'bed', name: '201-2' },
        { id: '5', parent_id: null, kind: 'home', name: '王家' },
      ].map((place) => [place.id, place]),
    )
    expect(['3', '4', '5', '9', null].map((id) => bedLabel(places, id))).toEqual(
      ['201-1', '201-2', '王家', '', ''],
    )
  })
})
