/** What the risk model says of a resident, in words: the score with what it lacks, and its parts. */
import type { Priority } from './api'
import { i18n, language } from './i18n'

const { t } = i18n.global

/** What a score was made of; a newer platform may say more. */
export interface Explanation {
  parts?: Record<string, number>
  missing?: string[]
}

export interface Risk {
  at: string | null
  data_at: string | null
  stale: boolean
  score: number | null
  possible_min: number | null
  possible_max: number | null
  complete: boolean | null
  band: 'low' | 'low-medium' | 'medium' | 'high' | null
  deterioration: number | null
  priority: Priority | null
  sentence: { zh: string; en: string } | null
  explanation: Explanation | null
  usual: Partial<Record<string, { low: number; middle: number; high: number }>>
  modes: Partial<Record<string, string>>
}

/** In the order of the chart that nurses know. */
export const PARAMETERS = ['rr', 'spo2', 'oxygen', 'sbp', 'hr', 'consciousness', 'temp'] as const

/** "NEWS2 5", or of one that is not whole "部分评分 4–9，缺体温、血压": never NEWS2 then. */
export function scoreWords(risk: Risk): string {
  if (risk.score === null) return t('risk.none')
  if (risk.complete) return t('risk.whole', { n: risk.score })
  const missing = PARAMETERS.filter((name) => risk.explanation?.missing?.includes(name))
  const names = missing.map((name) => t(`riskPart.${name}`)).join(t('risk.and'))
  const range = { min: risk.possible_min, max: risk.possible_max }
  return names === '' ? t('risk.partly', range) : t('risk.partial', { ...range, names })
}

export function sentenceOf(said: { zh: string; en: string } | null | undefined): string {
  return said ? said[language.value] : ''
}
