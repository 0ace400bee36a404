/** One question to the API for a part of the page: its answer, or that it did not come. */
import { ref, shallowRef, watch } from 'vue'
import { ApiError, Unreachable, call } from '../api'

/** Ask whenever `path`, or what `again` tells, becomes another one; null asks nothing.
 *
 * An older answer never replaces a newer one.
 */
export function useAnswer<Answer>(path: () => string | null, again: () => unknown = () => null) {
  const value = shallowRef<Answer | null>(null)
  const failed = ref(false)
  let latest = 0

  async function read(): Promise<void> {
    const wanted = path()
    const mine = ++latest
    if (wanted === null) return
    try {
      const answer = await call<Answer>('GET', wanted)
      if (mine !== latest) return
      value.value = answer
      failed.value = false
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof Unreachable)) throw error
      if (mine === latest) failed.value = true
    }
  }

  watch([path, again], () => void read(), { immediate: true })
  return { value, failed, read }
}
