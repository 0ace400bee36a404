import { readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'

const source = readFileSync(new URL('../public/push.js', import.meta.url), 'utf8')
const HERE = 'https://care.example.cn'

interface Shown {
  title: string
  body?: string
  tag?: string
  data: { navigate?: string }
}

/** The worker in a scope of its own, with pages that are open. */
function worker(pages: { visibilityState: string; postMessage: unknown; focus: () => Promise<void> }[] = []) {
  const heard = new Map<string, (event: unknown) => void>()
  const shown: Shown[] = []
  const opened: string[] = []
  const scope = {
    location: { origin: HERE },
    addEventListener: (type: string, listener: (event: unknown) => void) => heard.set(type, listener),
    registration: {
      showNotification: async (title: string, options: Omit<Shown, 'title'>) => shown.push({ title, ...options }),
    },
    clients: { matchAll: async () => pages, openWindow: async (url: string) => opened.push(url) },
  }
  new Function('self', source)(scope)
  async function fire(type: string, event: object): Promise<void> {
    const work: Promise<unknown>[] = []
    heard.get(type)?.({ ...event, waitUntil: (one: Promise<unknown>) => work.push(one) })
    await Promise.all(work)
  }
  const click = (navigate?: string) =>
    fire('notificationclick', { notification: { close: () => undefined, data: { navigate } } })
  return { heard, shown, opened, fire, click }
}

const message = { json: () => ({ web_push: 8030, notification: { title: '紧急呼叫', body: '201', tag: 'k', navigate: `${HERE}/?alarm=7` } }) }

describe('the worker for notices', () => {
  it('shows what was pushed, and keeps the link', async () => {
    const { shown, fire } = worker()
    await fire('push', { data: message })
    expect(shown).toMatchObject([{ title: '紧急呼叫', body: '201', tag: 'k', data: { navigate: `${HERE}/?alarm=7` } }])
  })

  it.each([
    ['nothing', null],
    ['no JSON', { json: () => JSON.parse('{') }],
    ['another shape', { json: () => ({ alarm: 7 }) }],
  ])('shows something when %s came', async (_, data) => {
    const { shown, fire } = worker()
    await fire('push', { data })
    expect(shown).toHaveLength(1)
    expect(shown[0]?.title).toContain('安心')
  })

  it('opens the alarm where no page is open, and only ever at home', async () => {
    const { opened, click } = worker()
    await click(`${HERE}/?alarm=7`)
    await click('https://elsewhere.example.com/x?alarm=8')
    await click('')
    expect(opened).toEqual(['/?alarm=7', '/?alarm=8', '/'])
  })

  it('shows the alarm in the page that is open, which keeps its sound', async () => {
    const page = (visibilityState: string) => ({ visibilityState, postMessage: vi.fn(), focus: vi.fn(async () => undefined) })
    const [hidden, visible] = [page('hidden'), page('visible')]
    const { opened, click } = worker([hidden, visible])
    await click(`${HERE}/?alarm=7`)
    expect(opened).toEqual([])
    expect(hidden.postMessage).not.toHaveBeenCalled()
    expect(visible.postMessage).toHaveBeenCalledWith({ type: 'notice', alarm: '7' })
    expect(visible.focus).toHaveBeenCalled()
  })
})

describe('the worker without network', () => {
  const KEPT: Record<string, string> = { '/family': 'the page as kept', '/assets/family-1.js': 'kept part' }
  const match = async (asked: string | { url: string }) =>
    KEPT[typeof asked === 'string' ? asked : new URL(asked.url).pathname]

  /** What the worker answers to a request; null where it leaves it to the browser. */
  async function answered(path: string, network: () => Promise<unknown>, mode = 'cors', method = 'GET') {
    const heard = new Map<string, (event: unknown) => void>()
    const scope = {
      location: { origin: HERE },
      addEventListener: (type: string, listener: (event: unknown) => void) => heard.set(type, listener),
    }
    new Function('self', 'caches', 'fetch', source)(scope, { match }, network)
    let answer: unknown = null
    heard.get('fetch')?.({ request: { method, mode, url: new URL(path, HERE).href }, respondWith: (one: unknown) => (answer = one) })
    return await answer
  }
  const away = () => Promise.reject(new TypeError('no network'))

  it('opens the page of a relative as it was kept, and as the platform has it where there is a network', async () => {
    const fresh = { status: 200 }
    for (const path of ['/', '/family', '/family?alarm=7']) {
      expect(await answered(path, away, 'navigate')).toBe('the page as kept')
      expect(await answered(path, async () => fresh, 'navigate')).toBe(fresh)
      expect(await answered(path, async () => ({ status: 502 }), 'navigate')).toBe('the page as kept')
    }
    expect(await answered('/assets/family-1.js', away)).toBe('kept part')
  })

  it('never answers for the API, the station or another site, so no list of alarms is ever an old one', async () => {
    for (const path of ['/api/v1/alarms', '/api/v1/me', '/api/v1/residents/7/status', '/push.js']) {
      expect(await answered(path, away)).toBeNull()
    }
    for (const path of ['/station', '/login', '/api/docs']) expect(await answered(path, away, 'navigate')).toBeNull()
    expect(await answered('https://elsewhere.example.com/assets/family-1.js', away)).toBeNull()
    expect(await answered('/family', away, 'navigate', 'POST')).toBeNull()
    // It keeps nothing by itself: the page says what it is made of.
    expect(source).not.toMatch(/\.(put|add|addAll)\(/)
  })
})
