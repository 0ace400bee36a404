/* The one worker of the pages. It shows the notices that are pushed to this browser, and opens a
   relative's page without network from the files that the page has kept. What the API says it
   neither answers nor keeps: a list of alarms is always the platform's own. */

const SHELL = 'anxin-shell'
const PATIENCE_MS = 4000

self.addEventListener('fetch', (event) => {
  const { method, mode, url } = event.request
  const { origin, pathname } = new URL(url)
  if (method !== 'GET' || origin !== self.location.origin) return
  if (mode === 'navigate' && (pathname === '/' || pathname === '/family')) event.respondWith(page(event.request))
  else if (pathname.startsWith('/assets/')) event.respondWith(part(event.request))
})

/** The page as the platform has it now; without network, or when that takes long, as it was kept. */
async function page(request) {
  const kept = await caches.match('/family', { cacheName: SHELL })
  if (!kept) return fetch(request)
  try {
    const answer = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) })
    return answer.status < 500 ? answer : kept
  } catch {
    return kept
  }
}

/** A part has its content's hash in its name, so what was kept is what would come. */
async function part(request) {
  return (await caches.match(request, { cacheName: SHELL })) ?? fetch(request)
}

self.addEventListener('push', (event) => {
  const { title, navigate, ...options } = read(event.data)
  event.waitUntil(self.registration.showNotification(title, { icon: '/icon.svg', ...options, data: { navigate } }))
})

self.addEventListener('notificationclick', (event) => {
  event.notification.close()
  event.waitUntil(open(event.notification.data?.navigate))
})

/** Show the alarm in a page that is open, which keeps its sound and its shift, or in a new one. */
async function open(navigate) {
  // Only the question is taken from the link: the page is always the one that was subscribed from.
  const { search, searchParams } = new URL(navigate || '/', self.location.origin)
  const pages = await self.clients.matchAll({ type: 'window', includeUncontrolled: true })
  const page = pages.find((one) => one.visibilityState === 'visible') ?? pages[0]
  if (!page) {
    await self.clients.openWindow(`/${search}`)
    return
  }
  page.postMessage({ type: 'notice', alarm: searchParams.get('alarm') })
  await page.focus()
}

/** A browser ends the subscription of who shows nothing, so something is shown in any case. */
function read(data) {
  const plain = { title: '【安心】有新的通知', body: 'Anxin: a new notice', lang: 'zh-CN' }
  try {
    const { notification } = data.json()
    return typeof notification.title === 'string' ? notification : plain
  } catch {
    return plain
  }
}
