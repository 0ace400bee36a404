import { describe, expect, it, vi } from 'vitest'
import type { Measured, Usual } from '../openapi'

vi.stubGlobal('localStorage', { getItem: () => null, setItem: () => undefined })
vi.stubGlobal('document', { documentElement: {}, createElement: () => ({}) })
await import('./texts')
const { lines } = await import('./today')

const measured = (today: number | null, low?: number, high?: number): Measured => ({
  today,
  days: low === undefined ? 3 : 20,
  usual: low === undefined || high === undefined ? null : { low, median: (low + high) / 2, high },
  hours: [],
})
const usual = (metrics: Record<string, Measured>, nights: Usual['nights'] = { last: null, usual: null }): Usual => ({
  until: '2026-11-24T03:00:00Z',
  zone: 'Asia/Shanghai',
  metrics,
  nights,
})
const told = (about: string, one: Usual) => lines(one).find((line) => line.about === about)

describe('today beside what is usual', () => {
  it('says above, below or as usual by the numbers that are shown', () => {
    const text = (today: number) => told('hr', usual({ hr: measured(today, 61.6, 69.4) }))?.text
    expect(text(72)).toBe('心率平均 72 次/分，比平常高（平常 62–69）。')
    expect(text(69.4)).toContain('和平常差不多')
    expect(text(61.5)).toContain('和平常差不多')
    expect(text(58)).toContain('比平常低')
  })

  it('says that a thing is still being learnt, and never calls it usual', () => {
    const line = told('steps', usual({ steps: measured(812) }))
    expect(line?.standing).toBe('learning')
    expect(line?.text).toContain('已知 3 天')
  })

  it('says of everything that was not measured that it was not', () => {
    const all = lines(usual({}))
    expect(all.map(({ about }) => about)).toEqual(['night', 'hr', 'rr', 'spo2', 'temp', 'steps'])
    expect(all.every(({ standing, text }) => standing === 'none' && text.includes('没有测量'))).toBe(true)
    expect(told('hr', usual({ hr: measured(null, 60, 70) }))?.text).toContain('今天还没有测量')
  })

  it('tells a night with its times, and one that is not over', () => {
    const last = { date: '2026-11-24', in_bed_at: '2026-11-23T14:05:00Z', up_at: '2026-11-23T22:40:00Z', minutes_in_bed: 509, exits: 1 }
    const usually = { nights: 9, minutes_in_bed: 480, exits: 2, in_bed_minute: 1330, up_minute: 395 }
    expect(told('night', usual({}, { last, usual: usually }))?.text).toBe(
      '昨晚 22:05 上床，06:40 起床，在床 8 小时 29 分，中间起来 1 次。平常在床 8 小时 0 分，起来 2 次。平常 22:10 上床，06:35 起床。',
    )
    expect(told('night', usual({}, { last: { ...last, up_at: null }, usual: null }))?.text).toContain('现在还在床上')
  })
})
