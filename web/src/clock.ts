/** One ticking second for the whole page, on the platform's clock. */
import { ref } from 'vue'
import { serverNow } from './api'

export const now = ref(serverNow())
setInterval(() => {
  now.value = serverNow()
}, 1000)
