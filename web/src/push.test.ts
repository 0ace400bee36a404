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

  it('answers no request, so no list of alarms is ever an old one', () => {
    expect([...worker().heard.keys()].sort()).toEqual(['notificationclick', 'push'])
  })
})
