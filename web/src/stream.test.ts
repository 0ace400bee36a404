import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ApiError, Unreachable, type Frame } from './api'
import { Stream } from './stream'

class Socket {
  static all: Socket[] = []
  readyState = 0
  sent: unknown[] = []
  onopen: (() => void) | null = null
  onmessage: ((message: { data: string }) => void) | null = null
  onclose: ((event: { code: number }) => void) | null = null

  constructor() {
    Socket.all.push(this)
  }

  opens(): void {
    this.readyState = 1
    this.onopen?.()
  }

  says(frame: Frame): void {
    this.onmessage?.({ data: JSON.stringify(frame) })
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text))
  }

  close(): void {
    this.readyState = 3
  }
}

const events: string[] = []
let cursor: number | null = null
let ticket: () => Promise<string>
let stream: Stream

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('WebSocket', { OPEN: 1 })
  vi.stubGlobal('window', new EventTarget())
  vi.stubGlobal('document', Object.assign(new EventTarget(), { visibilityState: 'visible' }))
  vi.stubGlobal('location', { protocol: 'http:', host: 'station' })
  Socket.all = []
  events.length = 0
  cursor = null
  ticket = () => Promise.resolve('one')
  stream = new Stream(
    {
      cursor: () => cursor,
      frame: (frame) => events.push(frame.type),
      connected: (is_up) => events.push(is_up ? 'up' : 'down'),
      ended: () => events.push('ended'),
    },
    () => ticket(),
    () => new Socket() as unknown as WebSocket,
  )
})
afterEach(() => {
  stream.stop()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

const last = () => Socket.all.at(-1) as Socket
const wait = (ms: number) => vi.advanceTimersByTimeAsync(ms)

async function isUp(): Promise<void> {
  stream.start()
  await wait(0)
  last().opens()
  last().says({ type: 'ready', cursor: 5 })
}

describe('a stream', () => {
  it('says hello with its ticket and cursor, and is up when the server is ready', async () => {
    await isUp()
    expect(last().sent).toEqual([{ type: 'hello', ticket: 'one', cursor: null }])
    expect(events).toEqual(['ready', 'up'])
  })

  it('that is cut off is back within a quarter of a second, from its cursor', async () => {
    await isUp()
    cursor = 41
    last().onclose?.({ code: 1006 })
    await wait(250)
    expect(Socket.all).toHaveLength(2)
    last().opens()
    expect(last().sent).toEqual([{ type: 'hello', ticket: 'one', cursor: 41 }])
  })

  it('that hears no ping for 12 seconds gives up the connection and makes a new one', async () => {
    await isUp()
    await wait(11_000)
    last().says({ type: 'ping' })
    await wait(11_900)
    expect(Socket.all).toHaveLength(1)
    await wait(500)
    expect(Socket.all).toHaveLength(2)
    expect(events).toContain('down')
  })

  it('tries again and again while the network is away, at most 8 seconds apart', async () => {
    let tries = 0
    ticket = () => {
      tries += 1
      return Promise.reject(new Unreachable())
    }
    stream.start()
    await wait(60_000)
    const so_far = tries
    expect(so_far).toBeGreaterThan(8)
    await wait(8_000)
    expect(tries).toBeGreaterThan(so_far)
    expect(tries).toBeLessThan(30)
  })

  it('ends when the session has ended', async () => {
    ticket = () => Promise.reject(new ApiError(401, ''))
    stream.start()
    await wait(60_000)
    expect(events).toEqual(['ended'])
  })

  it('passes over what a connection says after it was given up', async () => {
    await isUp()
    const first = last()
    first.onclose?.({ code: 1006 })
    first.says({ type: 'resync' })
    expect(events).not.toContain('resync')
  })
})
