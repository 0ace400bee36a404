/** Large type, remembered by the device. */
import { ref, watchEffect } from 'vue'

const REMEMBERED = 'anxin.large'

export const large = ref(localStorage.getItem(REMEMBERED) === 'yes')

watchEffect(() => {
  localStorage.setItem(REMEMBERED, large.value ? 'yes' : 'no')
})
