/** Where in the back office one is: a section and what is open in it, both in the address. */
import { computed } from 'vue'
import { go, parameter, path, setParameters } from '../route'

export const SECTIONS = [
  'residents', 'devices', 'places', 'staff', 'roster', 'ladders', 'contacts', 'limits', 'import', 'reports', 'audit', 'backups',
] as const
export type Section = (typeof SECTIONS)[number]

/** What one must be allowed to do to open a section. */
export const NEEDS: Record<Section, string> = {
  residents: 'residents.read',
  devices: 'devices.read',
  places: 'places.read',
  staff: 'users.read',
  roster: 'roster.write',
  ladders: 'roster.write',
  contacts: 'contacts.write',
  limits: 'limits.write',
  import: 'imports.write',
  reports: 'reports.read',
  audit: 'audit.read',
  backups: 'administer',
}

const parts = computed(() => path.value.split('/').slice(2).filter(Boolean))

export const section = computed<Section>(() => SECTIONS.find((name) => name === parts.value[0]) ?? 'residents')
export const open = computed<string | null>(() => (parts.value[1] ? decodeURIComponent(parts.value[1]) : null))

/** Open something in a section; what the list was narrowed to stays while the section does. */
export function show(to: Section, id: string | null = null): void {
  const stays = to === section.value ? location.search : ''
  go(addressOf(to, id) + stays)
}

export function addressOf(to: Section, id: string | null = null): string {
  return `/office/${to}${id === null ? '' : `/${encodeURIComponent(id)}`}`
}

/** A parameter of the address that a field shows and changes. */
export function useParameter(name: string) {
  return computed<string>({
    get: () => {
      void path.value
      return parameter(name) ?? ''
    },
    set: (value) => setParameters({ [name]: value === '' ? null : value }),
  })
}
