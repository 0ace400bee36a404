/** One connection to the alarm stream that is always on its way back. */
import { ApiError, call, type Frame } from './api'

const SILENCE_MS = 12_000 // The server pings every 5 s: two lost in a row and a little.
const OPENING_MS = 10_000
const FIRST_WAIT_MS = 250
const LONGEST_WAIT_MS = 8_000
const ENDED_BY_LOGOUT = 4001

export interface Handlers {
  /** The place in the stream to go on from; null for "from now". */
  cursor: () => number | null
  frame: (frame: Frame) => void
  /** Called with true when the server has said ready, with false when the connection is gone. */
  connected: (is_up: boolean) => void
  /** The session is over; somebody has to log in again. */
  ended: () => void
}

export class Stream {
  private socket: WebSocket | null = null
  private attempts = 0
  private retry: ReturnType<typeof setTimeout> | undefined
  private watchdog: ReturnType<typeof setTimeout> | undefined
  private stopped = false
  private opening = false

  constructor(
    private readonly handlers: Handlers,
    private readonly ticket: () => Promise<string> = newTicket,
    private readonly connect: (url: string) => WebSocket = (url) => new WebSocket(url),
  ) {}

  start(): void {
    window.addEventListener('online', this.hurry)
    document.addEventListener('visibilitychange', this.hurry)
    void this.open()
  }

  stop(): void {
    this.stopped = true
    window.removeEventListener('online', this.hurry)
    document.removeEventListener('visibilitychange', this.hurry)
    clearTimeout(this.retry)
    this.drop()
  }

  /** Send a receipt; false when there is no connection to send it on. */
  send(frame: Record<string, unknown>): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN) return false
    this.socket.send(JSON.stringify(frame))
    return true
  }

  private async open(): Promise<void> {
    if (this.opening || this.socket || this.stopped) return
    this.opening = true
    clearTimeout(this.retry)
    let ticket: string
    try {
      ticket = await this.ticket()
    } catch (error) {
      this.opening = false
      if (error instanceof ApiError && error.status === 401) this.handlers.ended()
      else this.tryAgain()
      return
    }
    this.opening = false
    if (this.stopped) return
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
    const socket = this.connect(`${scheme}://${location.host}/api/v1/stream`)
    this.socket = socket
    this.expect(OPENING_MS)
    socket.onopen = () => {
      if (this.socket !== socket) return
      socket.send(JSON.stringify({ type: 'hello', ticket, cursor: this.handlers.cursor() }))
      this.expect(SILENCE_MS)
    }
    socket.onmessage = (message) => {
      if (this.socket !== socket) return
      this.expect(SILENCE_MS)
      const frame = JSON.parse(String(message.data)) as Frame
      if (frame.type === 'ready') this.attempts = 0
      this.handlers.frame(frame)
      if (frame.type === 'ready') this.handlers.connected(true)
    }
    socket.onclose = (event) => {
      if (this.socket !== socket) return
      if (event.code === ENDED_BY_LOGOUT) {
        this.drop()
        this.handlers.ended()
      } else this.lost()
    }
  }

  private expect(within_ms: number): void {
    clearTimeout(this.watchdog)
    this.watchdog = setTimeout(() => this.lost(), within_ms)
  }

  private lost(): void {
    this.drop()
    this.tryAgain()
  }

  private drop(): void {
    clearTimeout(this.watchdog)
    const socket = this.socket
    this.socket = null // A late event of this socket finds that it is no longer the one.
    socket?.close()
    this.handlers.connected(false)
  }

  private tryAgain(): void {
    if (this.stopped) return
    const wait = Math.min(FIRST_WAIT_MS * 2 ** this.attempts, LONGEST_WAIT_MS)
    this.attempts += 1
    clearTimeout(this.retry)
    this.retry = setTimeout(() => void this.open(), wait * (0.5 + Math.random() / 2))
  }

  private readonly hurry = (): void => {
    if (document.visibilityState === 'visible' && !this.socket) void this.open()
  }
}

async function newTicket(): Promise<string> {
  return (await call<{ ticket: string }>('POST', '/stream/tickets')).ticket
}
