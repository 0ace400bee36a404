import type { FamilyTexts } from './zh'

export const en: FamilyTexts = {
  heading: 'My family',
  since: 'since {at}',
  heard: 'Last sign of life: {age}',
  neverHeard: 'No device has been heard from yet',
  empty: 'There is nobody to look after here yet',
  emptyHelp: 'Ask the nursing station: the elder, or the guardian, has to agree before you can see how they are.',
}
