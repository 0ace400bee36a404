/** What the timeline of an alarm tells a station: who said that they are on their way, and notes; pure. */

export interface TimelineLine {
  id: string
  at: string
  change: string
  actor: string | null
  channel: string | null
  note: string | null
}

/** The note by which whoever took an alarm says that they have set out; in the words of both languages. */
export const ON_MY_WAY = '正在前往 · On my way'

export interface Way {
  actor: string | null
  at: string
}

/** Who is on the way since the alarm was taken last; null while nobody said so. */
export function wayOf(lines: TimelineLine[]): Way | null {
  const since = lines.findLastIndex(({ change }) => change === 'acknowledged')
  const said = lines.slice(since + 1).findLast(({ change, note }) => change === 'note' && note === ON_MY_WAY)
  return since >= 0 && said ? { actor: said.actor, at: said.at } : null
}

const WRITTEN = new Set(['note', 'closed'])

/** What people wrote about an alarm, without what only says that they set out. */
export function notesOf(lines: TimelineLine[]): TimelineLine[] {
  return lines.filter(({ change, note }) => WRITTEN.has(change) && note && note !== ON_MY_WAY)
}
