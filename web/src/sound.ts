/** Alarm sounds, generated: pulse patterns after IEC 60601-1-8, without a claim of conformity. */
import { ref, shallowRef } from 'vue'
import type { Priority } from './api'

export interface Burst {
  /** Start of each pulse in seconds from the start of the burst. */
  pulses: number[]
  pulse_s: number
  pitch_hz: number
  loudness: number
  /** Seconds from the end of one burst to the start of the next; null plays it once. */
  pause_s: number | null
}

/** The sound of a priority. High: 3-2, a breath, 3-2 again. Medium: 3. Low: 1, once. */
export function burst(priority: Priority): Burst {
  switch (priority) {
    case 'high': {
      const pulse_s = 0.15
      const step = pulse_s + 0.1
      const five = [0, step, 2 * step, 3 * step + 0.25, 4 * step + 0.25]
      const second = 4 * step + 0.25 + pulse_s + 0.5
      return {
        pulses: [...five, ...five.map((at) => at + second)],
        pulse_s,
        pitch_hz: 660,
        loudness: 0.9,
        pause_s: 2.5,
      }
    }
    case 'medium':
      return {
        pulses: [0, 0.4, 0.8],
        pulse_s: 0.2,
        pitch_hz: 520,
        loudness: 0.6,
        pause_s: 7.5,
      }
    case 'low':
      return { pulses: [0], pulse_s: 0.25, pitch_hz: 390, loudness: 0.4, pause_s: null }
  }
}

const WANTED = 'anxin.sound'
const PROOF_MS = 400

/** Whether this screen was asked to sound; remembered across reloads. */
export const wanted = ref(localStorage.getItem(WANTED) !== 'off')
/** Whether the browser lets it sound now. */
export const allowed = ref(false)
/** The priority that is sounding now. */
export const sounding = shallowRef<Priority | null>(null)

let context: AudioContext | null = null
let wave: PeriodicWave | null = null
let output: GainNode | null = null
let next: ReturnType<typeof setTimeout> | undefined

/** Ask the browser for sound; it grants it once somebody has touched the page. */
export function allow(): void {
  if (!context) {
    const made = new AudioContext()
    context = made
    // A fundamental with harmonics of like strength can be placed by ear, a pure tone cannot.
    wave = made.createPeriodicWave(new Float32Array([0, 1, 0.8, 0.7, 0.6, 0.5]), new Float32Array(6))
    made.onstatechange = () => {
      allowed.value = made.state === 'running'
      restart()
    }
    allowed.value = made.state === 'running'
  }
  // Without a touch this promise stays open for ever, so nothing may wait for it.
  void context.resume()
}

export function setWanted(is_wanted: boolean): void {
  wanted.value = is_wanted
  localStorage.setItem(WANTED, is_wanted ? 'on' : 'off')
  restart()
}

/** Sound this priority from now on, until called with another one or null. */
export function sound(priority: Priority | null): void {
  if (priority === sounding.value) return
  sounding.value = priority
  silence()
  if (priority !== null) repeat(priority)
}

/** Play one burst of a priority at once, for the sound test; returns its length in seconds. */
export function play(priority: Priority): number {
  const { pulses, pulse_s, pitch_hz, loudness } = burst(priority)
  const length = (pulses.at(-1) ?? 0) + pulse_s
  if (!context || !wave || context.state !== 'running') return length
  output = context.createGain()
  output.gain.value = loudness
  output.connect(context.destination)
  const start = context.currentTime + 0.02
  for (const at of pulses) {
    const oscillator = context.createOscillator()
    const envelope = context.createGain()
    oscillator.setPeriodicWave(wave)
    oscillator.frequency.value = pitch_hz
    const rise = pulse_s * 0.15
    envelope.gain.setValueAtTime(0, start + at)
    envelope.gain.linearRampToValueAtTime(0.5, start + at + rise)
    envelope.gain.setValueAtTime(0.5, start + at + pulse_s - rise)
    envelope.gain.linearRampToValueAtTime(0, start + at + pulse_s)
    oscillator.connect(envelope).connect(output)
    oscillator.start(start + at)
    oscillator.stop(start + at + pulse_s)
  }
  return length
}

/** Whether sound really comes out of the browser: a faint tone is measured, and time goes on. */
export async function prove(): Promise<boolean> {
  if (!context || !wave || context.state !== 'running' || !wanted.value) return false
  const oscillator = context.createOscillator()
  const analyser = context.createAnalyser()
  const faint = context.createGain()
  oscillator.setPeriodicWave(wave)
  faint.gain.value = 0.0001
  oscillator.connect(analyser).connect(faint).connect(context.destination)
  const before = context.currentTime
  oscillator.start()
  await new Promise((done) => setTimeout(done, PROOF_MS))
  const samples = new Float32Array(analyser.fftSize)
  analyser.getFloatTimeDomainData(samples)
  oscillator.stop()
  oscillator.disconnect()
  faint.disconnect()
  const goes_on = context.currentTime - before > PROOF_MS / 4000
  return goes_on && samples.some((sample) => Math.abs(sample) > 0.01)
}

function restart(): void {
  silence()
  if (sounding.value !== null) repeat(sounding.value)
}

function repeat(priority: Priority): void {
  if (!wanted.value || !allowed.value) return // restart() comes back here when either changes.
  const { pause_s } = burst(priority)
  const length = play(priority)
  if (pause_s !== null) next = setTimeout(() => repeat(priority), (length + pause_s) * 1000)
}

function silence(): void {
  clearTimeout(next)
  if (output && context) output.gain.setTargetAtTime(0, context.currentTime, 0.02)
  output = null
}
