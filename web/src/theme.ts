/** Dark for the night and the wall, light for a desk by day; remembered. */
import { ref } from 'vue'

export type Theme = 'dark' | 'light'

const REMEMBERED = 'anxin.theme'

export const theme = ref<Theme>(localStorage.getItem(REMEMBERED) === 'light' ? 'light' : 'dark')

export function setTheme(to: Theme): void {
  localStorage.setItem(REMEMBERED, to)
  // The style must be there before anything redraws with its colours.
  document.documentElement.dataset.theme = to
  theme.value = to
}

setTheme(theme.value)
