/** The texts of the family's pages, which come with them. */
import { i18n } from '../i18n'
import { en } from '../locales/family/en'
import { zh } from '../locales/family/zh'

i18n.global.mergeLocaleMessage('zh', { family: zh })
i18n.global.mergeLocaleMessage('en', { family: en })
