import { computed } from 'vue'
import { createI18n } from 'vue-i18n'
import { en } from './locales/en'
import { zh } from './locales/zh'

export type Language = 'zh' | 'en'

const REMEMBERED = 'anxin.language'
const first: Language = localStorage.getItem(REMEMBERED) === 'en' ? 'en' : 'zh'

export const i18n = createI18n({
  legacy: false,
  locale: first,
  fallbackLocale: 'zh',
  messages: { zh, en },
})

export const language = computed<Language>(() => i18n.global.locale.value as Language)

export function setLanguage(to: Language): void {
  i18n.global.locale.value = to
  localStorage.setItem(REMEMBERED, to)
  document.documentElement.lang = to === 'zh' ? 'zh-CN' : 'en'
}

setLanguage(first)
