import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { en } from './en'
import { zh } from './zh'

type Tree = { [key: string]: string | Tree }

function texts(tree: Tree, path = ''): [string, string][] {
  return Object.entries(tree).flatMap(([key, value]): [string, string][] =>
    typeof value === 'string' ? [[path + key, value]] : texts(value, `${path}${key}.`),
  )
}

const chinese = new Map(texts(zh))
const english = new Map(texts(en))
const holes = (text = '') => (text.match(/\{\w+\}/g) ?? []).sort()

describe('the two languages', () => {
  it('have the same keys, none of them empty', () => {
    expect([...english.keys()].sort()).toEqual([...chinese.keys()].sort())
    expect([...chinese, ...english].filter(([, text]) => text.trim() === '')).toEqual([])
  })

  it('fill in the same values', () => {
    for (const [key, text] of chinese) {
      expect([key, holes(english.get(key))]).toEqual([key, holes(text)])
    }
  })

  it('have a text for every key that a page asks for', () => {
    const source = new URL('..', import.meta.url)
    const asked = readdirSync(source)
      .filter((name) => /\.(vue|ts)$/.test(name) && !name.endsWith('.test.ts'))
      .flatMap((name) => [
        ...readFileSync(new URL(name, source), 'utf8').matchAll(/\bt\(\s*'([\w.]+)'/g),
      ])
      .map(([, key]) => key ?? '')
    expect(asked.length).toBeGreaterThan(80)
    expect(asked.filter((key) => !chinese.has(key))).toEqual([])
  })

  it('have a word for every alarm kind of the platform', () => {
    const kinds =
      'sos fall apnea bed_exit bed_return smoke gas co water_leak door_open door_closed motion ' +
      'geofence_exit geofence_return tamper low_battery help_cancelled heart_rate_high ' +
      'heart_rate_low respiration_high respiration_low spo2_low temperature_high temperature_low ' +
      'blood_pressure_high blood_pressure_low bed_exit_long no_activity device_silent ' +
      'device_fault battery_low early_warning risk_rising unusual'
    for (const kind of kinds.split(' ')) expect([kind, chinese.has(`kind.${kind}`)]).toEqual([kind, true])
  })
})
