import { describe, expect, it } from 'vitest'
import { ON_MY_WAY, notesOf, wayOf, type TimelineLine } from './timeline'

function lines(...said: [change: string, actor: string, note?: string][]): TimelineLine[] {
  return said.map(([change, actor, note], i) => {
    const at = `2026-03-01T08:00:0${i}Z`
    return { id: String(i), at, change, actor, channel: null, note: note ?? null }
  })
}

describe('who is on the way', () => {
  it('is known from a note after the alarm was taken', () => {
    const taken = lines(['raised', 'rule'], ['acknowledged', 'li'], ['note', 'li', ON_MY_WAY])
    expect(wayOf(taken)).toEqual({ actor: 'li', at: '2026-03-01T08:00:02Z' })
    expect(wayOf(taken.slice(0, 2))).toBeNull()
  })

  it('is nobody again once somebody else has taken it', () => {
    const twice = lines(['acknowledged', 'li'], ['note', 'li', ON_MY_WAY], ['acknowledged', 'wang'])
    expect(wayOf(twice)).toBeNull()
  })

  it('is no note that anybody has to read', () => {
    const all = lines(['note', 'li', ON_MY_WAY], ['escalated', 'worker', '{}'], ['closed', 'li', '扶起'])
    expect(notesOf(all).map(({ note }) => note)).toEqual(['扶起'])
  })
})
