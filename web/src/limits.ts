/** Alarm limits as somebody types them; pure. */

/** The number that was typed, null for an empty field, NaN for what is none. */
export function limitValue(text: string): number | null {
  const given = text.trim().replace(/[,，。]/, '.')
  return given === '' ? null : /^\d+(\.\d+)?$/.test(given) ? Number(given) : NaN
}

/** What is wrong with a limit before the platform is asked; null: nothing. */
export function limitFault(text: string, bounds: { low: number; high: number }): 'noNumber' | 'outside' | null {
  const value = limitValue(text)
  if (value === null) return null
  if (Number.isNaN(value)) return 'noNumber'
  return value < bounds.low || value > bounds.high ? 'outside' : null
}

/** The limits after a change; null takes one back to the default. */
export function withLimits(
  own: Record<string, number>,
  wanted: Record<string, number | null>,
): Record<string, number> {
  const merged = Object.entries({ ...own, ...wanted })
  return Object.fromEntries(merged.flatMap(([name, value]) => (value === null ? [] : [[name, value]])))
}
