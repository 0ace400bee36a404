import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { en } from '../locales/family/en'
import { zh } from '../locales/family/zh'

type Tree = { [key: string]: string | Tree }

function texts(tree: Tree, path = ''): [string, string][] {
  return Object.entries(tree).flatMap(([key, value]): [string, string][] =>
    typeof value === 'string' ? [[path + key, value]] : texts(value, `${path}${key}.`),
  )
}

const chinese = new Map(texts(zh))
const english = new Map(texts(en))
const holes = (text = '') => (text.match(/\{\w+\}/g) ?? []).sort()

describe('the texts of the family', () => {
  it('have the same keys and fill in the same values in both languages, none of them empty', () => {
    expect([...english.keys()].sort()).toEqual([...chinese.keys()].sort())
    for (const [key, text] of chinese) expect([key, holes(english.get(key))]).toEqual([key, holes(text)])
    expect([...chinese, ...english].filter(([, text]) => text.trim() === '')).toEqual([])
  })

  it('have a text for every key that a part of the page asks for', () => {
    const source = new URL('.', import.meta.url)
    const asked = readdirSync(source)
      .filter((name) => /\.(vue|ts)$/.test(name) && !name.endsWith('.test.ts'))
      .flatMap((name) => [...readFileSync(new URL(name, source), 'utf8').matchAll(/\bt\(\s*'family\.([\w.]+)'/g)])
      .map(([, key]) => key ?? '')
    expect(asked.length).toBeGreaterThan(60)
    expect(asked.filter((key) => !chinese.has(key))).toEqual([])
  })
})
