/** The texts of the account's page, which come with it. */
import { i18n } from '../i18n'
import { en } from '../locales/account/en'
import { zh } from '../locales/account/zh'

i18n.global.mergeLocaleMessage('zh', { account: zh })
i18n.global.mergeLocaleMessage('en', { account: en })
