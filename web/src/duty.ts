/** Whether this screen keeps watch, and the proof, again and again, that it can call somebody. */
import { computed, onScopeDispose, reactive, watch } from 'vue'
import { serverNow } from './api'
import { now } from './clock'
import * as sound from './sound'

export const SHIFT_MS = 12 * 3_600_000
const PROVE_MS = 60_000
const REPORT_MS = 15_000
const TICK_MS = 5_000
const SLEPT_MS = 20_000 // A tick that comes so late was held up by a machine that stood still.
const SLEPT_SHOWN_MS = 10 * 60_000

export type Duty = ReturnType<typeof useDuty>
type Step = 'off' | 'asking' | 'on' | 'ending'

/** Keep watch for a user; `send` puts a frame on the stream and tells whether it could.
 *
 * Without a user the screen shows everything and can never be on duty.
 */
export function useDuty(username: string | null, send: (frame: Record<string, unknown>) => boolean) {
  const screen = screenName()
  const state = reactive({
    step: 'off' as Step,
    since: null as number | null,
    proved_at: null as number | null,
    proof_failed: false,
    visible: document.visibilityState === 'visible',
    slept_ms: 0,
    slept_at: 0,
    wake: 'none' as 'none' | 'held' | 'refused' | 'unsupported',
  })
  const on_duty = computed(() => state.since !== null)
  const heard = computed<'on' | 'muted' | 'unknown'>(() => {
    if (!sound.wanted.value || !sound.allowed.value) return 'muted'
    return state.proved_at !== null && !state.proof_failed ? 'on' : 'unknown'
  })
  const slept = computed(() =>
    state.slept_ms > 0 && now.value - state.slept_at < SLEPT_SHOWN_MS ? state.slept_ms : 0,
  )

  state.since = username === null ? null : rememberedShift(username)
  if (state.since !== null) {
    state.step = 'on'
    void stayAwake()
  }

  /** Begin a shift: play a tone that somebody has to hear. */
  async function begin(): Promise<void> {
    state.step = 'asking'
    sound.allow()
    sound.setWanted(true)
    sound.play('medium')
    await prove()
  }

  /** Somebody has heard the tone: from now on this screen counts as keeping watch. */
  function confirm(): void {
    state.since = serverNow()
    state.step = 'on'
    localStorage.setItem(SHIFT, JSON.stringify({ username, since: state.since }))
    void stayAwake()
    report()
  }

  function askToEnd(): void {
    state.step = 'ending'
  }

  function stay(): void {
    state.step = 'on'
  }

  /** End the shift in order, so that nobody misses this screen. */
  function end(): void {
    state.since = null
    state.step = 'off'
    localStorage.removeItem(SHIFT)
    void lock?.release()
    lock = null
    report()
  }

  // ---- the proof

  let tried_at = 0

  async function prove(): Promise<void> {
    tried_at = performance.now()
    const runs = await sound.prove()
    state.proof_failed = !runs
    if (runs) state.proved_at = serverNow()
    report()
  }

  // ---- what the platform is told

  let reported_at = -Infinity

  function report(): void {
    const { visible, proved_at } = state
    const told = send({
      type: 'station',
      screen,
      sound: heard.value,
      visible,
      on_duty: on_duty.value,
      proved_at: proved_at === null ? null : new Date(proved_at).toISOString(),
    })
    if (told) reported_at = performance.now()
  }

  // ---- a display that sleeps

  let lock: WakeLockSentinel | null = null

  async function stayAwake(): Promise<void> {
    if (!('wakeLock' in navigator)) {
      state.wake = 'unsupported'
      return
    }
    try {
      lock = await navigator.wakeLock.request('screen')
      state.wake = 'held'
      lock.addEventListener('release', () => {
        if (state.wake === 'held') state.wake = 'none'
      })
    } catch {
      state.wake = 'refused' // A battery that is low, or a page that is hidden: it is tried again.
    }
  }

  let ticked_at = serverNow()

  /** Look at everything; also called by what arrives, for hidden pages get few timers. */
  function tick(): void {
    const at = serverNow()
    if (at - ticked_at > SLEPT_MS) {
      state.slept_ms = at - ticked_at
      state.slept_at = at
      tried_at = 0
    }
    ticked_at = at
    if (state.since !== null && at - state.since > SHIFT_MS) end()
    if (on_duty.value && performance.now() - tried_at > PROVE_MS) void prove()
    if (performance.now() - reported_at > REPORT_MS) report()
  }

  function onVisibility(): void {
    state.visible = document.visibilityState === 'visible'
    if (state.visible && on_duty.value) void stayAwake()
    report()
  }

  const timer = setInterval(tick, TICK_MS)
  document.addEventListener('visibilitychange', onVisibility)
  // Sound that comes back is proved at once; sound that goes is told at once.
  watch([sound.wanted, sound.allowed], () => (on_duty.value ? void prove() : report()))
  onScopeDispose(() => {
    clearInterval(timer)
    document.removeEventListener('visibilitychange', onVisibility)
    void lock?.release()
  })

  return { possible: username !== null, state, on_duty, heard, slept, begin, confirm, askToEnd, stay, end, report, tick }
}

const SHIFT = 'anxin.duty'
const SCREEN = 'anxin.screen'

/** The name of this screen, made up once. */
function screenName(): string {
  const known = localStorage.getItem(SCREEN)
  if (known && /^[A-Za-z0-9_-]{1,64}$/.test(known)) return known
  const bytes = crypto.getRandomValues(new Uint8Array(12))
  const made = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  localStorage.setItem(SCREEN, made)
  return made
}

/** When the shift that this user began on this screen did begin, if it still lasts. */
export function rememberedShift(username: string, at: number = serverNow()): number | null {
  try {
    const kept = JSON.parse(localStorage.getItem(SHIFT) ?? 'null') as {
      username?: unknown
      since?: unknown
    } | null
    if (kept?.username !== username || typeof kept.since !== 'number') return null
    return at - kept.since < SHIFT_MS && kept.since <= at + 60_000 ? kept.since : null
  } catch {
    return null // Written by something else: no shift of ours.
  }
}
