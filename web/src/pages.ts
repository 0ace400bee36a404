/** The faces of the platform: where each lives, and whose it is. Each is loaded when it is opened. */
import { defineAsyncComponent, type Component } from 'vue'
import PageFault from './PageFault.vue'
import Starting from './Starting.vue'

export interface Face {
  name: 'station' | 'family' | 'office'
  roles: readonly string[]
  component: Component
}

const LOADERS = {
  station: () => import('./StationPage.vue'),
  family: () => import('./family/FamilyPage.vue'),
  office: () => import('./office/OfficePage.vue'),
}

export const FACES: readonly Face[] = [
  face('station', ['nurse', 'supervisor', 'admin']),
  face('family', ['family']),
  face('office', ['supervisor', 'admin']),
]

/** The face that lives at this path; null where none does. */
export function faceAt(path: string): Face | null {
  return FACES.find(({ name }) => path === `/${name}` || path.startsWith(`/${name}/`)) ?? null
}

/** Where a role begins; null for a program, which has no page. */
export function homeOf(role: string): string | null {
  const home = FACES.find(({ roles }) => roles.includes(role))
  return home ? `/${home.name}` : null
}

/** Begin to load a face before anybody is known, so that the login or the first answer is not waited for. */
export function loadAhead(path: string): void {
  const ahead = faceAt(path)
  // What fails here fails again, and is told, where the face is shown.
  if (ahead) LOADERS[ahead.name]().catch(() => undefined)
}

function face(name: Face['name'], roles: string[]): Face {
  const component = defineAsyncComponent({
    loader: LOADERS[name],
    loadingComponent: Starting,
    errorComponent: PageFault,
    delay: 0,
  })
  return { name, roles, component }
}
