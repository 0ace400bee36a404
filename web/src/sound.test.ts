import { describe, expect, it, vi } from 'vitest'

vi.stubGlobal('localStorage', { getItem: () => null, setItem: () => undefined })
const { burst } = await import('./sound')

describe('a burst', () => {
  it('of high priority is ten pulses: 3-2, a breath, 3-2', () => {
    const { pulses, pulse_s, pause_s } = burst('high')
    const gaps = pulses.slice(1).map((at, i) => at - (pulses[i] ?? 0) - pulse_s)
    const short = (gap: number | undefined) => gap !== undefined && gap < 0.2
    expect(pulses).toHaveLength(10)
    expect(gaps.map((gap) => (short(gap) ? '-' : gap < 0.4 ? ' ' : '/')).join('')).toBe('-- -/-- -')
    expect(pause_s).toBeGreaterThanOrEqual(2.5)
    expect(pause_s).toBeLessThanOrEqual(15)
  })

  it('of medium priority is three pulses, repeated', () => {
    const { pulses, pause_s } = burst('medium')
    expect(pulses).toHaveLength(3)
    expect(pause_s).toBeGreaterThanOrEqual(2.5)
    expect(pause_s).toBeLessThanOrEqual(30)
  })

  it('of low priority is one pulse, once', () => {
    expect(burst('low')).toMatchObject({ pulses: [0], pause_s: null })
  })

  it('is louder and higher the more urgent it is', () => {
    const order = (['high', 'medium', 'low'] as const).map(burst)
    expect(order.map((one) => one.loudness)).toEqual([...order.map((one) => one.loudness)].sort().reverse())
    expect(order.map((one) => one.pitch_hz)).toEqual([660, 520, 390])
  })
})
