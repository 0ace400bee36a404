import { createApp } from 'vue'
import App from './App.vue'
import { i18n } from './i18n'
import { loadAhead } from './pages'
import './tokens.css'
import './style.css'

loadAhead(location.pathname)
createApp(App).use(i18n).mount('#app')
