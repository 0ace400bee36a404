/** The places that one may see, as a tree and by their full names; read once for all sections. */
import { computed, shallowRef } from 'vue'
import { list } from '../api'
import type { Place } from '../openapi'

export type { Place }
const places = shallowRef<ReadonlyMap<string, Place>>(new Map())
export const places_read = shallowRef(false)

export async function readPlaces(): Promise<void> {
  const found = await list<Place>('/places')
  places.value = new Map(found.map((one) => [one.id, one]))
  places_read.value = true
}

export function placeOf(id: string | null): Place | null {
  return id === null ? null : (places.value.get(id) ?? null)
}

/** The names from the outer to the inner place: "康宁养老院 / 201 / 1床"; at most the last three. */
export function placeName(id: string | null, most = 3): string {
  const names: string[] = []
  for (let place = placeOf(id); place && names.length < most; place = placeOf(place.parent_id)) names.unshift(place.name)
  return names.join(' / ')
}

export const children = computed(() => {
  const found = new Map<string | null, Place[]>()
  for (const place of places.value.values()) {
    const parent = placeOf(place.parent_id) ? place.parent_id : null
    found.set(parent, [...(found.get(parent) ?? []), place])
  }
  const order = new Intl.Collator('zh', { numeric: true })
  for (const list of found.values()) list.sort((a, b) => order.compare(a.name, b.name))
  return found
})

/** Every place with how deep it lies, parents before their children. */
export const in_order = computed(() => {
  const rows: { place: Place; depth: number }[] = []
  const walk = (parent: string | null, depth: number): void => {
    for (const place of children.value.get(parent) ?? []) {
      rows.push({ place, depth })
      walk(place.id, depth + 1)
    }
  }
  walk(null, 0)
  return rows
})
