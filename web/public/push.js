/* Shows the notices that are pushed to this browser. It answers no request and keeps nothing. */

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
