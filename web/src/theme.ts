/** Dark for the night and the wall, light for a desk by day; remembered. */
import { ref } from 'vue'

export type Theme = 'dark' | 'light'

const REMEMBERED = 'anxin.theme'
const chosen = localStorage.getItem(REMEMBERED)

export const theme = ref<Theme>(chosen === 'light' ? 'light' : 'dark')

export function setTheme(to: Theme): void {
  localStorage.setItem(REMEMBERED, to)
  wear(to)
}

/** For a page of one's own, where nobody has chosen: what the system asks for. */
export function followSystem(): void {
  if (localStorage.getItem(REMEMBERED) === null) {
    wear(matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light')
  }
}

function wear(to: Theme): void {
  // The style must be there before anything redraws with its colours.
  document.documentElement.dataset.theme = to
  theme.value = to
}

wear(theme.value)
