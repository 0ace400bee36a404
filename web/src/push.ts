/** Notices in this browser while no page is open: Web Push, with plain words where it cannot work. */
import { reactive } from 'vue'
import { ApiError, Unreachable, call, list } from './api'
import { language } from './i18n'

/** Whether notices come to this browser, or why they cannot. */
export type Standing =
  | 'asking' // not known yet
  | 'insecure' // the page did not come over HTTPS
  | 'unsupported' // the browser has no Web Push
  | 'unconfigured' // the platform has no key
  | 'refused' // somebody has forbidden notices to this page
  | 'off'
  | 'other' // they come, but to another user
  | 'on'
  | 'failing' // the platform could not send the last ones

/** What went wrong with the last step. */
export type Trouble = 'undecided' | 'service' | 'platform'

export type Push = ReturnType<typeof usePush>

interface Contact {
  id: string
  channel: string
  address: string
  enabled: boolean
  failing_since: string | null
}

const WORKER = '/push.js'
const CONTACT = 'anxin.push'

/** Notices for a user in this browser. */
export function usePush(user_id: string) {
  const state = reactive({
    standing: 'asking' as Standing,
    busy: false,
    trouble: null as Trouble | null,
    tried: null as { ok: boolean; words: string } | null,
  })
  let key: string | null = null
  let mine: Contact | null = null

  /** Find out how things stand. */
  async function look(): Promise<void> {
    const impossible = hindrance()
    if (impossible) {
      state.standing = impossible
      return
    }
    await attempt(async () => {
      key = (await call<{ key: string | null }>('GET', '/channels/web_push/key')).key
      state.standing = key === null ? 'unconfigured' : await judge(key)
    })
  }

  async function judge(key: string): Promise<Standing> {
    if (Notification.permission === 'denied') return 'refused'
    const subscription = await present()
    if (!subscription || !isFor(subscription, key)) return 'off'
    mine = (await contacts()).find(({ address }) => endpoint(address) === subscription.endpoint) ?? null
    if (!mine) return 'other'
    if (!mine.enabled) return 'off'
    return mine.failing_since === null ? 'on' : 'failing'
  }

  /** Ask for permission, subscribe the browser and store where it is reached. */
  async function subscribe(): Promise<void> {
    await attempt(async () => {
      if (key === null) return
      const permission = await Notification.requestPermission()
      if (permission !== 'granted') {
        if (permission === 'denied') state.standing = 'refused'
        else state.trouble = 'undecided'
        return
      }
      const subscription = await fresh(key)
      if (!subscription) {
        state.trouble = 'service'
        return
      }
      await store(JSON.stringify(subscription))
      state.standing = await judge(key)
    })
  }

  /** Whoever else was notified here no longer is: a browser has one subscription. */
  async function fresh(key: string): Promise<PushSubscription | null> {
    await navigator.serviceWorker.register(WORKER)
    const { pushManager } = await navigator.serviceWorker.ready
    const old = await pushManager.getSubscription()
    if (old && !(mine && isFor(old, key))) await old.unsubscribe()
    try {
      return await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key })
    } catch (error) {
      if (error instanceof DOMException) return null // The browser cannot reach its maker's service.
      throw error
    }
  }

  /** Keep one contact for this browser, so that its place among the user's contacts stays. */
  async function store(address: string): Promise<void> {
    const kept = localStorage.getItem(CONTACT)
    const there = (await contacts()).find(
      (one) => one.id === kept || endpoint(one.address) === endpoint(address),
    )
    const { id } = there
      ? await call<Contact>('PATCH', `/contacts/${there.id}`, { address, enabled: true })
      : await call<Contact>('POST', '/contacts', { channel: 'web_push', address })
    localStorage.setItem(CONTACT, id)
  }

  /** Stop: first the platform, then the browser, so that no notice is sent into the void. */
  async function unsubscribe(): Promise<void> {
    await attempt(async () => {
      if (mine) await gone(call('DELETE', `/contacts/${mine.id}`))
      mine = null
      localStorage.removeItem(CONTACT)
      await (await present())?.unsubscribe()
      state.standing = 'off'
    })
  }

  /** Let the platform send a notice now. */
  async function test(): Promise<void> {
    await attempt(async () => {
      if (!mine) return
      const told = await call<{ ok: boolean; zh: string; en: string }>('POST', `/contacts/${mine.id}/test`)
      state.tried = { ok: told.ok, words: language.value === 'zh' ? told.zh : told.en }
    })
  }

  async function contacts(): Promise<Contact[]> {
    const all = await list<Contact>(`/contacts?user_id=${user_id}`)
    return all.filter(({ channel }) => channel === 'web_push')
  }

  async function attempt(step: () => Promise<void>): Promise<void> {
    state.busy = true
    state.trouble = null
    state.tried = null
    try {
      await step()
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof Unreachable)) throw error
      state.trouble = 'platform'
    } finally {
      state.busy = false
    }
  }

  return { state, look, subscribe, unsubscribe, test }
}

/** Call back with the alarm of a notice that somebody has clicked while this page was open. */
export function onNotice(open: (alarm_id: string) => void): void {
  if (!('serviceWorker' in navigator)) return
  navigator.serviceWorker.addEventListener('message', ({ data }: MessageEvent<unknown>) => {
    const { type, alarm } = (data ?? {}) as { type?: unknown; alarm?: unknown }
    if (type === 'notice' && typeof alarm === 'string') open(alarm)
  })
}

function hindrance(): Standing | null {
  if (!isSecureContext) return 'insecure'
  const has_all = 'serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window
  return has_all ? null : 'unsupported'
}

async function present(): Promise<PushSubscription | null> {
  const registration = await navigator.serviceWorker.getRegistration()
  return (await registration?.pushManager.getSubscription()) ?? null
}

function isFor(subscription: PushSubscription, key: string): boolean {
  const theirs = subscription.options.applicationServerKey
  if (!theirs) return false
  const text = btoa(String.fromCharCode(...new Uint8Array(theirs)))
  return text.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '') === key
}

function endpoint(address: string): string | null {
  try {
    return (JSON.parse(address) as { endpoint?: string }).endpoint ?? null
  } catch {
    return null // Written by hand, and not for a browser.
  }
}

/** What is not there any more need not be removed. */
async function gone(removal: Promise<unknown>): Promise<void> {
  try {
    await removal
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error
  }
}
