import { describe, expect, it } from 'vitest'
import type { Alarm, AlarmFrame } from './api'
import { EMPTY, applyAnswer, applyFrame, applySnapshot, audible, closed, pending } from './board'

const T0 = Date.parse('2026-03-01T08:00:00Z')

function alarm(id: string, changes: Partial<Alarm> = {}): Alarm {
  return {
    id,
    resident_id: '1',
    place_id: null,
    device_id: null,
    kind: 'sos',
    class: 'emergency',
    priority: 'high',
    condition: 'present',
    handling: 'open',
    outcome: null,
    count: 1,
    raised_at: new Date(T0 + Number(id) * 1000).toISOString(),
    last_at: new Date(T0 + Number(id) * 1000).toISOString(),
    event_at: new Date(T0).toISOString(),
    late: false,
    owner: null,
    detail: {},
    actions: [],
    ...changes,
  }
}

function frame(cursor: number, about: Alarm, change = 'raised'): AlarmFrame {
  return { type: 'alarm', cursor, change, alarm: about }
}

const story = [
  frame(11, alarm('1')),
  frame(12, alarm('1', { count: 2 }), 'repeated'),
  frame(13, alarm('2', { priority: 'medium' })),
  frame(14, alarm('1', { count: 2, handling: 'acknowledged', owner: 'li' }), 'acknowledged'),
  frame(15, alarm('1', { count: 2, handling: 'closed', outcome: 'real' }), 'closed'),
]
const told = story.reduce(applyFrame, { ...EMPTY, cursor: 10 })

describe('frames', () => {
  it('leave each alarm as its newest frame said', () => {
    expect(pending(told).map(({ id }) => id)).toEqual(['2'])
    expect(closed(told).map(({ id, outcome }) => [id, outcome])).toEqual([['1', 'real']])
    expect(told.cursor).toBe(15)
  })

  it('of a self-test move the cursor and are no alarms', () => {
    const test = alarm('9', { resident_id: null, detail: { selftest: true } })
    const after = applyFrame(told, frame(16, test))
    expect(after.cursor).toBe(16)
    expect(pending(after)).toEqual(pending(told))
    expect(pending(applySnapshot(told, [test], []))).toEqual([])
    // The mark alone silences nobody's call.
    const call = alarm('10', { detail: { selftest: true } })
    expect(audible(pending(applyFrame(told, frame(16, call))), T0)).toBe('high')
  })

  it('told again change nothing', () => {
    expect(story.reduce(applyFrame, told)).toBe(told)
  })

  it('at or before the cursor are passed over', () => {
    expect(applyFrame(told, frame(15, alarm('9')))).toBe(told)
  })
})

describe('a snapshot', () => {
  it('taken at any moment of the story ends in the same picture', () => {
    for (let asked = 0; asked <= story.length; asked++) {
      for (let read = asked; read <= story.length; read++) {
        const then = story.slice(0, read).reduce(applyFrame, { ...EMPTY, cursor: 10 })
        const list = [...pending(then), ...closed(then)]
        // Frames that came while the list was on its way, whether or not it already held them.
        let board = story.slice(0, asked).reduce(applyFrame, { ...EMPTY, cursor: 10 })
        const since = story.slice(asked)
        board = applySnapshot(since.reduce(applyFrame, board), list, since)
        expect(pending(board)).toEqual(pending(told))
        expect(closed(board)).toEqual(closed(told))
        expect(board.cursor).toBe(15)
      }
    }
  })

  it('ahead of the stream is not set back by an older frame', () => {
    const ahead = alarm('1', { handling: 'acknowledged', count: 2 })
    let board = applySnapshot({ ...EMPTY, cursor: 10 }, [ahead], [])
    board = applyFrame(board, frame(11, alarm('1')))
    expect(pending(board)[0]?.handling).toBe('acknowledged')
    board = applyFrame(board, frame(12, alarm('1', { handling: 'on_site', count: 2 }), 'on_site'))
    expect(pending(board)[0]?.handling).toBe('on_site')
  })

  it('drops an alarm that was closed while nobody listened', () => {
    const board = applyFrame({ ...EMPTY, cursor: 1 }, frame(2, alarm('1')))
    expect(pending(applySnapshot(board, [], []))).toEqual([])
  })

  it('keeps the cursor, so that a resumed stream skips nothing', () => {
    const board = applySnapshot({ ...EMPTY, cursor: 7 }, [alarm('1')], [])
    expect(board.cursor).toBe(7)
  })
})

describe('the answer to an action', () => {
  it('shows at once and is confirmed by the stream', () => {
    let board = applyFrame({ ...EMPTY, cursor: 1 }, frame(2, alarm('1')))
    board = applyAnswer(board, alarm('1', { handling: 'acknowledged' }))
    expect(pending(board)[0]?.handling).toBe('acknowledged')
    board = applyFrame(board, frame(3, alarm('1', { handling: 'acknowledged' }), 'acknowledged'))
    expect(pending(board)[0]?.handling).toBe('acknowledged')
  })

  it('never brings back an alarm that the stream has closed', () => {
    const board = applyAnswer(told, alarm('1', { count: 2, handling: 'acknowledged' }))
    expect(pending(board).map(({ id }) => id)).toEqual(['2'])
  })
})

describe('order and sound', () => {
  it('puts the most urgent first, then what nobody has taken, then the oldest', () => {
    const board = applySnapshot(
      EMPTY,
      [
        alarm('1', { priority: 'low' }),
        alarm('2', { handling: 'acknowledged' }),
        alarm('3'),
        alarm('4'),
        alarm('5', { priority: 'medium' }),
      ],
      [],
    )
    expect(pending(board).map(({ id }) => id)).toEqual(['3', '4', '2', '5', '1'])
  })

  it('is heard for the highest priority that nobody has acknowledged', () => {
    const medium = alarm('2', { priority: 'medium' })
    expect(audible([alarm('1', { handling: 'acknowledged' }), medium], T0)).toBe('medium')
    expect(audible([medium, alarm('1')], T0)).toBe('high')
    expect(audible([], T0)).toBeNull()
  })

  it('is silent for a snoozed alarm until its time has come', () => {
    const snoozed = alarm('1', { snoozed_until: new Date(T0 + 1000).toISOString() })
    expect(audible([snoozed], T0)).toBeNull()
    expect(audible([snoozed], T0 + 1001)).toBe('high')
  })
})
