/** What a relative's page remembers for when there is no network: states with their date, no alarms. */
import type { State, User } from '../api'

export interface KeptRelative {
  id: string
  name: string
  state: State
  since: string | null
  heard_at: string | null
}

export interface Kept {
  user: User
  /** When the platform said this, by its own clock. */
  at_ms: number
  relatives: KeptRelative[]
}

const KEPT = 'anxin.family'
/** Before the number of a resident: whom to call. */
export const STATION = 'anxin.station.'
/** The cache of the files that the page is made of; the worker in public/push.js reads it. */
export const SHELL = 'anxin-shell'

export function keep(kept: Kept): void {
  try {
    localStorage.setItem(KEPT, JSON.stringify(kept))
  } catch {
    // A browser without room or permission keeps nothing; the page works without.
  }
}

export function kept(): Kept | null {
  try {
    const text = localStorage.getItem(KEPT)
    return text === null ? null : (JSON.parse(text) as Kept)
  } catch {
    return null
  }
}

export function keptUser(): User | null {
  return kept()?.user ?? null
}

/** After a logout nothing of a relative stays on the device, nor the page that would show it. */
export function forget(): void {
  for (const key of Object.keys(localStorage)) {
    if (key === KEPT || key.startsWith(STATION)) localStorage.removeItem(key)
  }
  if ('caches' in window) void caches.delete(SHELL)
}
