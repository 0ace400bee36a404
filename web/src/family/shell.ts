/** Keeps the page itself on the device, so that it opens without network; never what the API says. */
import { SHELL } from './kept'

const WORKER = '/push.js'
const BESIDE = ['/manifest.webmanifest', '/icon.svg']

/** Keep the files that this page is made of, in place of those of an older version. */
export async function keepShell(): Promise<void> {
  // Not over plain HTTP, and not in every browser inside another app: the page works without.
  if (!('serviceWorker' in navigator) || !('caches' in window)) return
  try {
    await navigator.serviceWorker.register(WORKER)
    const parts = performance
      .getEntriesByType('resource')
      .map(({ name }) => new URL(name))
      .filter(({ origin, pathname }) => origin === location.origin && pathname.startsWith('/assets/'))
      .map(({ pathname }) => pathname)
    const wanted = new Set(['/family', ...BESIDE, ...parts])
    const shell = await caches.open(SHELL)
    // All of it or nothing: half a version would open to nothing.
    await shell.addAll([...wanted])
    for (const request of await shell.keys()) {
      if (!wanted.has(new URL(request.url).pathname)) await shell.delete(request)
    }
  } catch (error) {
    // No room or no network just now; the next opening tries again.
    if (!(error instanceof TypeError || error instanceof DOMException)) throw error
  }
}
