import { describe, expect, it } from 'vitest'
import { limitFault, limitValue, withLimits } from './limits'

describe('a limit that is typed', () => {
  const bounds = { low: 90, high: 150 }

  it('is a number inside the bounds, or nothing for the default', () => {
    expect(['', ' 90 ', '150', '120.5', '120,5'].map((text) => limitFault(text, bounds))).toEqual(Array(5).fill(null))
    expect(['89.9', '151', '0'].map((text) => limitFault(text, bounds))).toEqual(Array(3).fill('outside'))
    expect(['x', '1e2', '-90', '12 0', '.'].map((text) => limitFault(text, bounds))).toEqual(Array(5).fill('noNumber'))
    expect(limitValue('37,5')).toBe(37.5)
  })

  it('leaves the others as they are, and an empty one goes back to the default', () => {
    expect(withLimits({ hr_high: 110, rr_low: 9 }, { hr_high: null, spo2_low: 88 })).toEqual({ rr_low: 9, spo2_low: 88 })
  })
})
