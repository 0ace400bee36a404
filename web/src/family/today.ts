/** Today beside what is usual, as plain sentences; pure but for the language of the page. */
import { number, withUnit } from '../format'
import { i18n, language } from '../i18n'
import type { Measured, Nights, Usual } from '../openapi'

const { t } = i18n.global
const VITALS = ['hr', 'rr', 'spo2', 'temp'] as const

/** How one thing stands: `unlike` it differs from what is usual, `none` it was not measured. */
export type Standing = 'alike' | 'unlike' | 'learning' | 'none'

export interface Line {
  about: string
  standing: Standing
  text: string
}

/** Every line, also one for what was not measured: silence would look like health. */
export function lines(usual: Usual): Line[] {
  return [
    night(usual.nights, usual.zone),
    ...VITALS.map((metric) => vital(metric, usual.metrics[metric])),
    steps(usual.metrics.steps),
  ]
}

function vital(metric: (typeof VITALS)[number], measured: Measured | undefined): Line {
  const what = t(`family.metric.${metric}`)
  if (!measured) return { about: metric, standing: 'none', text: t('family.today.notMeasured', { what }) }
  if (measured.today === null) return { about: metric, standing: 'none', text: t('family.today.notToday', { what }) }
  const value = withUnit(measured.today, metric)
  if (!measured.usual) {
    return { about: metric, standing: 'learning', text: t('family.today.learning', { what, value, n: measured.days }) }
  }
  const words = { what, value, low: number(measured.usual.low, metric), high: number(measured.usual.high, metric) }
  const where = beside(measured, metric)
  return { about: metric, standing: where === 'asUsual' ? 'alike' : 'unlike', text: t(`family.today.${where}`, words) }
}

function steps(measured: Measured | undefined): Line {
  const what = t('family.metric.steps')
  if (!measured) return { about: 'steps', standing: 'none', text: t('family.today.notMeasured', { what }) }
  if (measured.today === null) return { about: 'steps', standing: 'none', text: t('family.today.notToday', { what }) }
  const value = number(measured.today, 'steps')
  if (!measured.usual) {
    return { about: 'steps', standing: 'learning', text: t('family.today.stepsLearning', { value, n: measured.days }) }
  }
  const words = { value, low: number(measured.usual.low, 'steps'), high: number(measured.usual.high, 'steps') }
  const key = { asUsual: 'stepsAsUsual', above: 'stepsAbove', below: 'stepsBelow' }[beside(measured, 'steps')]
  return { about: 'steps', standing: key === 'stepsAsUsual' ? 'alike' : 'unlike', text: t(`family.today.${key}`, words) }
}

/** Where today lies, judged by the numbers as they are shown: 78 is not above a band up to 78. */
function beside({ today, usual }: Measured, metric: string): 'asUsual' | 'above' | 'below' {
  if (today === null || usual === null) return 'asUsual'
  const shown = (value: number) => Number(number(value, metric))
  if (shown(today) > shown(usual.high)) return 'above'
  if (shown(today) < shown(usual.low)) return 'below'
  return 'asUsual'
}

/** Times of the night are those of the clock at the bed, wherever this is read. */
function night({ last, usual }: Nights, zone: string): Line {
  const clock = (at: string) =>
    new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', timeZone: zone }).format(new Date(at))
  if (last === null) return { about: 'night', standing: 'none', text: t('family.today.nightNone') }
  const told = t('family.today.night', {
    from: last.in_bed_at === null ? '' : t('family.today.from', { at: clock(last.in_bed_at) }),
    to: last.up_at === null ? t('family.today.still') : t('family.today.to', { at: clock(last.up_at) }),
    long: long(last.minutes_in_bed),
    n: last.exits,
  })
  if (usual === null) return { about: 'night', standing: 'learning', text: joined([told, t('family.today.nightLearning')]) }
  const usually = [t('family.today.nightUsual', { long: long(usual.minutes_in_bed), n: usual.exits })]
  if (usual.in_bed_minute !== null && usual.up_minute !== null) {
    usually.push(t('family.today.nightUsualTimes', { from: minuteOfDay(usual.in_bed_minute), to: minuteOfDay(usual.up_minute) }))
  }
  return { about: 'night', standing: 'alike', text: joined([told, ...usually]) }
}

function joined(sentences: string[]): string {
  return sentences.join(language.value === 'zh' ? '' : ' ')
}

function long(minutes: number): string {
  return t('family.today.hours', { h: Math.floor(minutes / 60), m: minutes % 60 })
}

function minuteOfDay(minute: number): string {
  const two = (n: number) => String(n).padStart(2, '0')
  return `${two(Math.floor(minute / 60))}:${two(minute % 60)}`
}
