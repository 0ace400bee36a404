/** Where the person is: a page, and what they look at, all of it in the address. */
import { computed, ref } from 'vue'

const url = ref(new URL(location.href))

window.addEventListener('popstate', () => {
  url.value = new URL(location.href)
})

export const path = computed(() => url.value.pathname)
export const page = computed(() => (path.value === '/login' ? 'login' : 'face'))

export function parameter(name: string): string | null {
  return url.value.searchParams.get(name)
}

/** Go to a page of this application. */
export function go(path: string): void {
  history.pushState(null, '', path)
  url.value = new URL(location.href)
}

/** Put another path in place of the present one; what is looked at stays. */
export function moveTo(path: string): void {
  history.replaceState(null, '', path + location.search)
  url.value = new URL(location.href)
}

/** Change parameters of the present address; null removes one. */
export function setParameters(changes: Record<string, string | null>): void {
  const target = new URL(location.href)
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) target.searchParams.delete(name)
    else target.searchParams.set(name, value)
  }
  go(target.pathname + target.search)
}
