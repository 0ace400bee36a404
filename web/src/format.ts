/** Numbers, ages and times as people read them, in the language of the page. */
import { i18n, language } from './i18n'

const { t, te } = i18n.global

const DECIMALS: Partial<Record<string, number>> = {
  temp: 1,
  glucose: 1,
  weight: 1,
  movement: 2,
  room_temp: 1,
}
const UNITS: Partial<Record<string, string>> = {
  spo2: '%',
  temp: '°C',
  sbp: 'mmHg',
  dbp: 'mmHg',
  glucose: 'mmol/L',
  weight: 'kg',
  battery: '%',
  rssi: 'dBm',
  room_temp: '°C',
  humidity: '%',
}

export function number(value: number, metric: string): string {
  return value.toFixed(DECIMALS[metric] ?? 0)
}

export function unit(metric: string): string {
  return metric === 'hr' || metric === 'rr' ? t('unit.perMinute') : (UNITS[metric] ?? '')
}

/** A value with its unit: "72 次/分", "97%". */
export function withUnit(value: unknown, metric: string): string {
  if (typeof value === 'boolean') return t(value ? 'value.yes' : 'value.no')
  if (typeof value !== 'number') return String(value)
  const name = unit(metric)
  return `${number(value, metric)}${name === '' || name === '%' ? name : ` ${name}`}`
}

/** The word for a code, or the code itself where a newer platform knows more than this page. */
export function word(group: string, code: string): string {
  return te(`${group}.${code}`, 'zh') ? t(`${group}.${code}`) : code
}

/** How long ago: "8 秒前". */
export function age(elapsed_ms: number): string {
  const s = Math.floor(elapsed_ms / 1000)
  if (s < 1) return t('age.now')
  if (s < 60) return t('age.seconds', { n: s })
  if (s < 3600) return t('age.minutes', { n: Math.floor(s / 60) })
  if (s < 86_400) return t('age.hours', { n: Math.floor(s / 3600) })
  return t('age.days', { n: Math.floor(s / 86_400) })
}

/** That a value is a minute old or older, and how old: "过时 3 分". */
export function old(elapsed_ms: number): string {
  const minutes = Math.max(1, Math.floor(elapsed_ms / 60_000))
  if (minutes < 60) return t('old.minutes', { n: minutes })
  if (minutes < 1440) return t('old.hours', { n: Math.floor(minutes / 60) })
  return t('old.days', { n: Math.floor(minutes / 1440) })
}

/** How long, in one unit: "12 分". */
export function brief(elapsed_ms: number): string {
  const minutes = Math.floor(elapsed_ms / 60_000)
  if (minutes < 1) return t('brief.seconds', { n: Math.floor(elapsed_ms / 1000) })
  if (minutes < 60) return t('brief.minutes', { n: minutes })
  if (minutes < 1440) return t('brief.hours', { n: Math.floor(minutes / 60) })
  return t('brief.days', { n: Math.floor(minutes / 1440) })
}

/** How long: "2 分 05 秒". */
export function span(elapsed_ms: number): string {
  const s = Math.max(0, Math.floor(elapsed_ms / 1000))
  const two = (n: number) => String(n).padStart(2, '0')
  if (s < 60) return t('span.seconds', { s })
  if (s < 3600) return t('span.minutes', { m: Math.floor(s / 60), s: two(s % 60) })
  if (s < 86_400) return t('span.hours', { h: Math.floor(s / 3600), m: two(Math.floor((s % 3600) / 60)) })
  return t('span.days', { d: Math.floor(s / 86_400), h: Math.floor((s % 86_400) / 3600) })
}

export function clockTime(at: number | string, with_seconds = false): string {
  return new Intl.DateTimeFormat(locale(), {
    hour: '2-digit',
    minute: '2-digit',
    ...(with_seconds ? { second: '2-digit' } : {}),
    hourCycle: 'h23',
  }).format(new Date(at))
}

export function day(at: number): string {
  return new Intl.DateTimeFormat(locale(), { month: 'long', day: 'numeric', weekday: 'long' }).format(at)
}

/** A moment near today: the time, with the day where that is another one. */
export function moment(at: string, now_ms: number): string {
  const date = new Date(at)
  if (date.toDateString() === new Date(now_ms).toDateString()) return clockTime(at, true)
  return new Intl.DateTimeFormat(locale(), {
    month: 'numeric',
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
  }).format(date)
}

function locale(): string {
  return language.value === 'zh' ? 'zh-CN' : 'en-GB'
}
