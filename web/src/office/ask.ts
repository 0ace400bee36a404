/** Asking the platform, and telling in plain words when it could not be done. */
import { computed, onScopeDispose, ref, shallowRef, watch, type Ref, type WatchSource } from 'vue'
import { ApiError, Unreachable, call } from '../api'
import { i18n, language } from '../i18n'
import { sessionEnded } from '../session'

const { t, te } = i18n.global

/** What went wrong, as a sentence in the language of the page. */
export function explain(error: unknown): string {
  if (error instanceof Unreachable) return t('login.unreachable')
  if (!(error instanceof ApiError)) return t('office.fault.other', { why: String(error) })
  const faults = error.problem.faults
  if (faults?.length) return faults.map((one) => one[language.value]).join(' ')
  const known = te(`office.fault.s${error.status}`, 'zh')
  const why = error.problem.errors?.map(({ field, detail }) => `${fieldOf(field)}: ${detail}`).join(' ')
  const detail = why || error.message
  return known ? t(`office.fault.s${error.status}`, { why: detail }) : t('office.fault.other', { why: detail || error.status })
}

/** Which fields the platform could not use, and why, by the name of the field. */
export function fieldFaults(error: unknown): Record<string, string> {
  if (!(error instanceof ApiError)) return {}
  return Object.fromEntries((error.problem.errors ?? []).map(({ field, detail }) => [fieldOf(field), detail]))
}

function fieldOf(path: string): string {
  return path.split('.').filter((part) => part !== 'body')[0] ?? path
}

/** One question to the API; where the session is over, that is said. */
export async function ask<Answer>(method: string, path: string, body?: unknown, timeout_ms?: number): Promise<Answer> {
  try {
    return await call<Answer>(method, path, body, timeout_ms)
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) sessionEnded()
    throw error
  }
}

/** Something that is read, read again when what it depends on changes, or asked for again. */
export function useRead<Value>(read: () => Promise<Value>, sources: WatchSource[] = [], every_ms = 0) {
  const value = shallowRef<Value | null>(null) as Ref<Value | null>
  const fault = ref<string | null>(null)
  const busy = ref(false)
  let turn = 0

  async function again(): Promise<void> {
    const mine = ++turn
    busy.value = true
    try {
      const found = await read()
      // A slower answer to an older question must not take the place of a newer one.
      if (mine !== turn) return
      value.value = found
      fault.value = null
    } catch (error) {
      if (mine === turn) fault.value = explain(error)
    } finally {
      if (mine === turn) busy.value = false
    }
  }

  if (sources.length) watch(sources, again)
  if (every_ms) {
    const timer = setInterval(() => void again(), every_ms)
    onScopeDispose(() => clearInterval(timer))
  }
  void again()
  return { value, fault, busy, again }
}

/** Something that is done once at a time; what came of it stays on the page until the next. */
export function useDeed() {
  const busy = ref(false)
  const fault = ref<string | null>(null)
  const fields = shallowRef<Record<string, string>>({})
  const said = ref<string | null>(null)
  const undo = shallowRef<(() => Promise<void>) | null>(null)

  async function run(deed: () => Promise<unknown>, says = '', back: (() => Promise<void>) | null = null): Promise<boolean> {
    if (busy.value) return false
    busy.value = true
    fault.value = said.value = undo.value = null
    fields.value = {}
    try {
      await deed()
      said.value = says || null
      undo.value = back
      return true
    } catch (error) {
      fault.value = explain(error)
      fields.value = fieldFaults(error)
      return false
    } finally {
      busy.value = false
    }
  }

  return { busy, fault, fields, said, undo, run, quiet: computed(() => !fault.value && !said.value) }
}
export type Deed = ReturnType<typeof useDeed>
