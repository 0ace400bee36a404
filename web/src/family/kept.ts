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

/** After a logout nothing of a relative stays on the device. */
export function forget(): void {
  localStorage.removeItem(KEPT)
}
