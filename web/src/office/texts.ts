/** The texts of the back office, which come with it. */
import { i18n } from '../i18n'
import { en } from '../locales/office/en'
import { zh } from '../locales/office/zh'

i18n.global.mergeLocaleMessage('zh', { office: zh })
i18n.global.mergeLocaleMessage('en', { office: en })
