/** What an alarm says beside its kind: the value and its limit, or which devices are missed. */
import type { Alarm } from './api'
import { withUnit, word } from './format'
import { i18n } from './i18n'
import { sentenceOf } from './risk'

const { t } = i18n.global
const MOST_NAMES = 3

export function sentence(alarm: Alarm): string {
  const { detail, kind } = alarm
  const { reason, stations, sentence: said } = detail
  if (said && typeof said === 'object') return sentenceOf(said as { zh: string; en: string })
  if (typeof reason === 'string') {
    const who = Object.keys((stations as Record<string, string> | undefined) ?? {}).join(', ')
    return who ? `${word('reason', reason)} · ${who}` : word('reason', reason)
  }
  if (kind === 'device_silent' && Array.isArray(detail.devices)) return missed(detail, detail.devices as string[])
  if (typeof detail.away_minutes === 'number') return t('alarm.away', { n: detail.away_minutes })
  if (typeof detail.still_hours === 'number') return t('alarm.still', { n: detail.still_hours })
  return measured(detail)
}

function missed(detail: Alarm['detail'], devices: string[]): string {
  const { of, gateway, clocks, never_heard } = detail
  if (typeof gateway === 'string') return t('alarm.gateway', { id: gateway, n: devices.length - 1 })
  if (typeof of === 'number') return t('alarm.together', { n: devices.length, of })
  const names = devices.slice(0, MOST_NAMES).join(', ') + (devices.length > MOST_NAMES ? ' …' : '')
  if (never_heard === true) return t('alarm.neverHeard', { names })
  const is_blind = Array.isArray(clocks) && clocks.every((clock) => clock === 'measurement')
  return t(is_blind ? 'alarm.measuresNothing' : 'alarm.notHeard', { names })
}

function measured({ metric, value, limit }: Alarm['detail']): string {
  if (typeof metric !== 'string' || typeof value !== 'number') return ''
  const words = { metric: word('metric', metric), value: withUnit(value, metric) }
  if (typeof limit !== 'number') return t('alarm.value', words)
  return t(value >= limit ? 'alarm.limitAbove' : 'alarm.limitBelow', { ...words, limit: withUnit(limit, metric) })
}
