/** Some things ask for the password again: a dialogue does it, and the request is repeated. */
import { shallowRef } from 'vue'
import { call, remedy } from './api'
import { user } from './session'

interface Question {
  answer: (confirmed: boolean) => void
}

/** The dialogue that is open now. */
export const question = shallowRef<Question | null>(null)
let asked: Promise<boolean> | null = null

/** Ask once, however many requests wait for it; true when the password was right. */
function stepUp(): Promise<boolean> {
  asked ??= new Promise<boolean>((resolve) => {
    question.value = { answer: resolve }
  }).finally(() => {
    question.value = null
    asked = null
  })
  return asked
}

export async function confirm(password: string, code: string): Promise<void> {
  await call('POST', '/auth/step-up', {
    ...(password ? { password } : {}),
    ...(code ? { totp: code } : {}),
  })
  question.value?.answer(true)
}

remedy({
  stepUp,
  lacking: (what) => {
    if (user.value && user.value.limited !== what) user.value = { ...user.value, limited: what }
  },
})
