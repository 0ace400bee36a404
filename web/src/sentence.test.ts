import { describe, expect, it, vi } from 'vitest'
import type { Alarm } from './api'

vi.stubGlobal('localStorage', { getItem: () => null, setItem: () => undefined })
vi.stubGlobal('document', { documentElement: {}, createElement: () => ({}) })
const { sentence } = await import('./sentence')

const said = (kind: string, detail: Record<string, unknown>) => sentence({ kind, detail } as unknown as Alarm)

describe('what an alarm says', () => {
  it('is the value and the limit it passed', () => {
    expect(said('heart_rate_high', { metric: 'hr', value: 131, limit: 120 })).toBe('心率 131 次/分，高于上限 120 次/分')
    expect(said('sos', {})).toBe('')
  })

  it('names the devices that are missed, and how', () => {
    const device = { devices: ['mat-1'], clocks: ['heartbeat'], never_heard: false }
    expect(said('device_silent', device)).toBe('收不到设备：mat-1')
    expect(said('device_silent', { ...device, clocks: ['measurement'] })).toBe('设备在线，但没有读数：mat-1')
    expect(said('device_silent', { ...device, never_heard: true })).toBe('从未联系上设备：mat-1')
    const gateway = { ...device, devices: ['gw', 'a', 'b'], gateway: 'gw' }
    expect(said('device_silent', gateway)).toBe('网关 gw 失联，经它连接的 2 个设备收不到数据')
    expect(said('device_silent', { devices: ['a', 'b', 'c', 'd', 'e'], of: 9 })).toBe('5 个设备同时失联（共 9 个）')
  })

  it('says why a fault was raised', () => {
    const muted = { reason: 'station_muted', stations: { 'nurse.1': 'muted' } }
    expect(said('device_fault', muted)).toBe('护理站没有声音 · nurse.1')
    expect(said('device_fault', { reason: 'deaf' })).toBe('平台收不到任何设备的数据')
  })
})
