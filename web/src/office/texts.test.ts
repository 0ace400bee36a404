import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { en as shared } from '../locales/en'
import { en } from '../locales/office/en'
import { zh } from '../locales/office/zh'

type Tree = { [key: string]: string | Tree }

function texts(tree: Tree, path = ''): [string, string][] {
  return Object.entries(tree).flatMap(([key, value]): [string, string][] =>
    typeof value === 'string' ? [[path + key, value]] : texts(value, `${path}${key}.`),
  )
}

const chinese = new Map(texts(zh, 'office.'))
const english = new Map(texts(en, 'office.'))
const known = new Set([...chinese.keys(), ...texts(shared).map(([key]) => key)])
const here = new URL('.', import.meta.url)
const holes = (text = '') => (text.match(/\{\w+\}/g) ?? []).sort()
const source = readdirSync(here)
  .filter((name) => /\.(vue|ts)$/.test(name) && !name.endsWith('.test.ts'))
  .map((name) => readFileSync(new URL(name, here), 'utf8'))
  .join('\n')

describe('the texts of the back office', () => {
  it('are the same keys with the same holes in both languages, none empty', () => {
    expect([...english.keys()].sort()).toEqual([...chinese.keys()].sort())
    for (const [key, text] of chinese) expect([key, holes(english.get(key))]).toEqual([key, holes(text)])
    expect([...chinese, ...english].filter(([, text]) => text.trim() === '')).toEqual([])
  })

  it('are there for every key that a page asks for', () => {
    const asked = [...source.matchAll(/'((?:office|bar|login|banner|drawer|value)\.[\w.]+)'/g)].map(([, key]) => key ?? '')
    expect(asked.length).toBeGreaterThan(150)
    const families = new Set([...known].map((key) => key.slice(0, key.lastIndexOf('.'))))
    expect(asked.filter((key) => !known.has(key) && !families.has(key))).toEqual([])
  })

  it('hold a word for every member of each family that a page puts together', () => {
    const families = [...source.matchAll(/`(office\.[\w.]+)\.\$\{/g)].map(([, family]) => family ?? '')
    expect(families.length).toBeGreaterThan(20)
    for (const family of families) expect([family, [...known].some((key) => key.startsWith(`${family}.`))]).toEqual([family, true])
  })
})
