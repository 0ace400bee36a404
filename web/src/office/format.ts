/** Days, times and shares as the back office shows them. */
import { i18n, language } from '../i18n'

const locale = (): string => (language.value === 'zh' ? 'zh-CN' : 'en-GB')

/** A moment with its day: "2026/11/24 08:05". */
export function when(at: string | null): string {
  if (at === null) return '—'
  return new Intl.DateTimeFormat(locale(), { dateStyle: 'short', timeStyle: 'short', hourCycle: 'h23' }).format(new Date(at))
}

export function dayOf(at: string | number): string {
  return new Intl.DateTimeFormat(locale(), { month: 'numeric', day: 'numeric', weekday: 'short' }).format(new Date(at))
}

export function percent(share: number | null): string {
  return share === null ? '—' : new Intl.NumberFormat(locale(), { style: 'percent', maximumFractionDigits: 1 }).format(share)
}

export function count(n: number): string {
  return new Intl.NumberFormat(locale()).format(n)
}

export function bytes(n: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB']
  let at = 0
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024
    at++
  }
  return `${new Intl.NumberFormat(locale(), { maximumFractionDigits: 1 }).format(n)} ${units[at] ?? ''}`
}

export function seconds(s: number | null): string {
  if (s === null) return '—'
  const { t } = i18n.global
  return s < 120 ? t('span.seconds', { s: Math.round(s) }) : t('brief.minutes', { n: Math.round(s / 60) })
}

export function ageOf(born: string, today = new Date()): number {
  const then = new Date(born)
  const before = today.getMonth() < then.getMonth() || (today.getMonth() === then.getMonth() && today.getDate() < then.getDate())
  return today.getFullYear() - then.getFullYear() - (before ? 1 : 0)
}

/** "08:30" of a minute of the day; 1440 is the end of it. */
export function ofDay(minute: number): string {
  return `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`
}

/** A moment as a field of date and time takes it, in the time of this screen. */
export function asField(at: Date): string {
  const two = (n: number) => String(n).padStart(2, '0')
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}`
}
