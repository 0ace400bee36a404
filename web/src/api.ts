/** The HTTP API as this page uses it: its types, and one function that calls it. */

export type Priority = 'high' | 'medium' | 'low'
export type Handling = 'open' | 'acknowledged' | 'on_site' | 'closed'
export type Outcome = 'real' | 'false' | 'test' | 'unknown'
export type Action = 'acknowledge' | 'arrive' | 'close' | 'snooze' | 'note'
export type State = 'well' | 'attention' | 'emergency' | 'unknown'
export type Presence = 'present' | 'absent' | 'unknown'
export type Monitoring = 'present' | 'absent' | 'network-error' | 'sensor-error' | 'undeployed'

export interface User {
  id: string
  username: string
  role: string
  place_id: string | null
  /** What the session may do nothing but get: a password of one's own, or a second factor. */
  limited?: 'password' | 'second-factor' | null
  second_factor?: boolean
  /** By what the session began; who came by a provider can show there again who it is. */
  method?: 'password' | 'oidc' | 'wecom'
}

export interface Place {
  id: string
  parent_id: string | null
  kind: string
  name: string
}

export interface Resident {
  id: string
  name: string
  sex: 'female' | 'male' | 'unknown'
  born: string | null
  place_id: string
  care_level: number | null
  /** What only staff are told. */
  fall_risk?: boolean | null
  wander_risk?: boolean | null
  note?: string | null
}

export interface Latest {
  value: number | string | boolean
  at: string
}

export interface Status {
  state: State
  since: string | null
  latest: Partial<Record<string, Latest>>
  presence: Presence | null
  open_alarms: unknown
  monitored: boolean
  monitoring: Monitoring
}

export interface Device {
  id: string
  kind: string
  name: string
  resident_id: string | null
  assigned_since: string | null
  heard_at: string | null
  battery: number | null
  monitoring: Monitoring
}

export interface Alarm {
  id: string
  resident_id: string | null
  place_id: string | null
  device_id: string | null
  kind: string
  class: string
  priority: Priority
  condition: 'present' | 'recovered'
  handling: Handling
  outcome: Outcome | null
  count: number
  raised_at: string
  last_at: string
  event_at: string
  late: boolean
  owner: string | null
  snoozed_until?: string | null
  detail: Record<string, unknown>
  actions: Action[]
}

export interface SelfTest {
  id: string
  started_at: string
  displayed_at: string | null
  failed: string | null
}

export interface CareEvent {
  id: string
  type: string
  ts: string
}

/** One bucket of a series: start in epoch milliseconds, mean, lowest, highest, readings. */
export type Bucket = [t: number, mean: number, low: number, high: number, n: number]
export type Vitals = Partial<Record<string, Bucket[]>>

export interface Page<Item> {
  items: Item[]
  next: string | null
}

export type Frame =
  | { type: 'ready'; cursor: number }
  | { type: 'ping' }
  | { type: 'resync' }
  | AlarmFrame
  | ({ type: 'status'; resident_id: string } & Status)

export interface AlarmFrame {
  type: 'alarm'
  cursor: number
  change: string
  alarm: Alarm
}

/** What the server says of an error, RFC 9457; members beside these depend on the route. */
export interface Problem {
  type?: string
  detail?: string
  /** Of a password that may not be chosen: why. */
  reason?: string
  errors?: { field: string; detail: string }[]
  faults?: { zh: string; en: string }[]
}

/** An answer that is not 2xx, with the server's own explanation where it gave one. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly problem: Problem = {},
  ) {
    super(detail)
  }
}

/** The network failed before any answer came. */
export class Unreachable extends Error {}

const TIMEOUT_MS = 15_000
let skew_ms = 0

/** The platform's clock, so that ages are right on a screen whose own clock is not. */
export function serverNow(): number {
  return Date.now() + skew_ms
}

/** Routes that answer with another token in place of the present one. */
const RENEWING = new Set(['/auth/step-up', '/me/password', '/me/totp/confirm'])
let renewals = 0
let renewing: Promise<unknown> = Promise.resolve()

/** What a page does about a session that must first show who it is, or lacks something. */
interface Remedies {
  /** Ask for the password again; false when the person would rather not. */
  stepUp: () => Promise<boolean>
  lacking: (what: 'password' | 'second-factor') => void
}
let remedies: Remedies | null = null

export function remedy(by: Remedies): void {
  remedies = by
}

/** Call one route under /api/v1 and return its JSON; raise ApiError or Unreachable. */
export async function call<Answer>(
  method: string,
  path: string,
  body?: unknown,
  timeout_ms = TIMEOUT_MS,
): Promise<Answer> {
  const before = renewals
  const again = () => send<Answer>(method, path, body, timeout_ms)
  const sent = again()
  if (RENEWING.has(path)) {
    const counted = () => void renewals++
    renewing = sent.then(counted, () => undefined)
  }
  try {
    return await sent
  } catch (error) {
    if (!(error instanceof ApiError)) throw error
    if (error.status === 401 && !RENEWING.has(path)) {
      // Sent with a token that another request has replaced meanwhile.
      await renewing
      if (renewals !== before) return again()
    }
    const { type } = error.problem
    if (type === 'step-up' && !RENEWING.has(path) && (await remedies?.stepUp())) return again()
    if (type === 'password-change-needed') remedies?.lacking('password')
    if (type === 'second-factor-needed') remedies?.lacking('second-factor')
    throw error
  }
}

async function send<Answer>(
  method: string,
  path: string,
  body: unknown,
  timeout_ms: number,
): Promise<Answer> {
  const sent_at = Date.now()
  let response: Response
  try {
    response = await fetch(`/api/v1${path}`, {
      method,
      headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(timeout_ms),
    })
  } catch (error) {
    throw new Unreachable(String(error))
  }
  readClock(response.headers.get('date'), sent_at)
  if (!response.ok) {
    const problem = await explanation(response)
    throw new ApiError(response.status, typeof problem.detail === 'string' ? problem.detail : '', problem)
  }
  if (response.status === 204) return undefined as Answer
  try {
    return (await response.json()) as Answer
  } catch (error) {
    throw new Unreachable(String(error))
  }
}

/** Read every page of a list, or as many items as asked for. */
export async function list<Item>(path: string, at_most = Infinity): Promise<Item[]> {
  const items: Item[] = []
  let after: string | null = null
  do {
    const joint: string = path.includes('?') ? '&' : '?'
    const page: Page<Item> = await call(
      'GET',
      `${path}${joint}limit=${Math.min(1000, at_most)}` +
        (after === null ? '' : `&after=${encodeURIComponent(after)}`),
    )
    items.push(...page.items)
    after = page.next
  } while (after !== null && items.length < at_most)
  return items.slice(0, at_most)
}

async function explanation(response: Response): Promise<Problem> {
  try {
    return (await response.json()) as Problem
  } catch {
    return {} // A proxy's HTML page explains nothing to a nurse; the status code speaks.
  }
}

function readClock(date: string | null, sent_at: number): void {
  const stamp = Date.parse(date ?? '')
  if (Number.isNaN(stamp)) return
  // The header counts whole seconds, so anything nearer than two is the same clock.
  const skew = stamp + 500 - (sent_at + Date.now()) / 2
  skew_ms = Math.abs(skew) < 2000 ? 0 : skew
}
