import { describe, expect, it, vi } from 'vitest'
import type { Alarm } from './api'
import type { Risk } from './risk'

vi.stubGlobal('localStorage', { getItem: () => null, setItem: () => undefined })
vi.stubGlobal('document', { documentElement: {}, createElement: () => ({}) })
const { scoreWords } = await import('./risk')
const { sentence } = await import('./sentence')
const { setLanguage } = await import('./i18n')

const risk = (fields: Partial<Risk>) => ({ score: 4, possible_min: 4, possible_max: 9, complete: false, explanation: null, ...fields }) as Risk

describe('the score in words', () => {
  it('is called NEWS2 only when nothing is missing', () => {
    expect(scoreWords(risk({ complete: true, score: 6 }))).toBe('NEWS2 6 分')
    const missing = { parts: {}, missing: ['temp', 'sbp'] }
    expect(scoreWords(risk({ explanation: missing }))).toBe('部分评分 4–9，缺血压、体温')
    expect(scoreWords(risk({}))).toBe('部分评分 4–9')
  })

  it('is said in the language of the page, in alarms too', () => {
    const said = { zh: '呼吸 26，平时 16；部分评分 7', en: 'breathing 26, usually 16; partial score 7' }
    const alarm = { kind: 'early_warning', detail: { sentence: said } } as unknown as Alarm
    expect(sentence(alarm)).toBe(said.zh)
    setLanguage('en')
    expect(sentence(alarm)).toBe(said.en)
    expect(scoreWords(risk({ explanation: { parts: {}, missing: ['consciousness'] } }))).toBe('partial score 4–9, without consciousness')
    setLanguage('zh')
  })
})
