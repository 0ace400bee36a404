/** Who is using this screen. */
import { ref, shallowRef } from 'vue'
import { ApiError, call, type User } from './api'
import { forget } from './family/kept'
import { faceAt, homeOf } from './pages'
import { go, moveTo } from './route'

/** The page of one's own account. */
export const ACCOUNT = '/account'

export const user = shallowRef<User | null>(null)
/** True when the person was here and the session ran out, so that the login page can say so. */
export const expired = ref(false)

/** Find out whether this browser is logged in; go to the login page if it is not. */
export async function restore(): Promise<void> {
  try {
    user.value = await call<User>('GET', '/me')
    if (!faceAt(location.pathname) && location.pathname !== ACCOUNT) moveTo(homeOf(user.value.role) ?? '/')
  } catch (error) {
    // Anything but a refusal passes: the platform is there, its database may not be.
    if (!(error instanceof ApiError && (error.status === 401 || error.status === 403))) throw error
    leave()
  }
}

/** Log in; `code` is that of the second factor, where there is one. */
export async function login(username: string, password: string, code = ''): Promise<void> {
  const answer = await call<{ user: User; limited: User['limited'] }>('POST', '/auth/login', {
    username,
    password,
    ...(code ? { totp: code } : {}),
  })
  expired.value = false
  user.value = { ...answer.user, limited: answer.limited ?? null, second_factor: code !== '' }
  moveTo(homeOf(answer.user.role) ?? '/')
}

export async function logout(): Promise<void> {
  try {
    await call('POST', '/auth/logout')
  } catch (error) {
    // Already over on the server, which is what was wanted.
    if (!(error instanceof ApiError && error.status === 401)) throw error
  }
  user.value = null
  forget()
  go('/login')
}

/** The server says that the session is over. */
export function sessionEnded(): void {
  expired.value = user.value !== null
  leave()
}

/** To the login page, which keeps in its address what the person wanted to see. */
function leave(): void {
  user.value = null
  forget()
  if (location.pathname !== '/login') moveTo('/login')
}
