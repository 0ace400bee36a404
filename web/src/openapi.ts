/** The API's own types, written by `python -m tests.web_types`: change nothing here. */

export interface Access {
  at: string
  name: string | null
  role: string | null
  place: string | null
  you: boolean
  action: string
  object: string
  fields: string[]
  zh: string
  en: string
}

export interface Answer {
  at: string
  change: string
  role: string | null
}

export interface AnsweringReport {
  items: SeenAnswering[]
  next: null
}

export interface Applied {
  id: string
  kind: 'residents' | 'devices'
  name: string
  place_id: string | null
  created_at: string
  expires_at: string
  columns: SeenHeading[]
  counts: Record<string, number>
  done: number
  applied_at: string | null
  secrets: NewSecret[]
}

export interface Band {
  low: number
  median: number
  high: number
}

export interface BegunFactor {
  secret: string
  uri: string
  qr: string
}

export interface CareEvent {
  id: string
  device_id: string
  type: string
  ts: string
  received_at: string
  detail: Record<string, unknown> | null
}

export interface Changed {
  changed: number
}

export interface Close {
  outcome: 'real' | 'false' | 'test' | 'unknown'
  note?: string | null
}

export interface Code {
  id: string
  code: string
  expires_at: string
  label: string
  svg: string
}

export interface Command {
  id: string
  name: string
  args: Record<string, unknown>
  created_at: string
  delivered_at: string | null
  ok: boolean | null
  result: unknown
  finished_at: string | null
}

export interface Confirmation {
  password?: string | null
  totp?: string | null
}

export interface Consent {
  id: string
  purpose: 'family' | 'care' | 'research'
  user_id: string | null
  username: string | null
  scopes: string[]
  given_by: 'elder' | 'guardian' | 'unstated'
  relation: string | null
  how: 'paper' | 'in_person' | 'app' | 'unstated'
  given_at: string
  until_at: string | null
  withdrawn_at: string | null
  recorded_at: string
  recorded_by: string | null
  withdrawn_by: string | null
  in_force: boolean
}

export interface ContactChange {
  address?: string | null
  secret?: string | null
  enabled?: boolean | null
}

export interface Device {
  id: string
  kind: 'bed_sensor' | 'wearable' | 'call_button' | 'cuff' | 'thermometer' | 'scale' | 'oximeter' | 'radar' | 'smoke' | 'door' | 'gateway' | 'other'
  name: string
  place_id: string | null
  resident_id: string | null
  assigned_since: string | null
  online: boolean | null
  heard_at: string | null
  battery: number | null
  rssi: number | null
  firmware: string | null
  connected_at: string | null
  network: string | null
  tls: string | null
  certificate_until: string | null
  quarantined: number
  overlap_until: string | null
  gateway_id: string | null
  monitoring: 'present' | 'absent' | 'network-error' | 'sensor-error' | 'undeployed'
  revoked_at: string | null
  created_at: string
}

export interface DeviceChange {
  kind?: 'bed_sensor' | 'wearable' | 'call_button' | 'cuff' | 'thermometer' | 'scale' | 'oximeter' | 'radar' | 'smoke' | 'door' | 'gateway' | 'other' | null
  name?: string | null
  place_id?: string | null
  gateway_id?: string | null
}

export interface Disclosure {
  id_card: string | null
  phone: string | null
  differs: ('born' | 'sex')[]
  relatives: SeenRelative[]
}

export interface Enrolled {
  id: string
  secret: string
  mqtt: string
}

export interface Enrolment {
  id: string
  kind: 'bed_sensor' | 'wearable' | 'call_button' | 'cuff' | 'thermometer' | 'scale' | 'oximeter' | 'radar' | 'smoke' | 'door' | 'gateway' | 'other'
  name: string
  place_id: string | null
  resident_id: string | null
  device_id: string | null
  gateway_id: string | null
  created_at: string
  expires_at: string
  withdrawn_at: string | null
  used_at: string | null
}

export interface Erasure {
  id: string
  resident_id: string
  requested_at: string
  approved_at: string | null
  refused_at: string | null
  began_at: string | null
  finished_at: string | null
  swept: Record<string, number>
  requested_by: string | null
  approved_by: string | null
}

export interface FamilyLink {
  user_id: string
  username: string
  scopes: string[]
}

export interface Fault {
  code: string
  step: number | null
  audience: string | null
  since: string | null
  until: string | null
  zh: string
  en: string
}

export interface FieldError {
  field: string
  detail: string
}

export interface FirstCode {
  code: string
}

export interface Found {
  id: string
  name: string
  whose: 'resident' | 'relative'
}

export interface HealthReport {
  items: SeenHealth[]
  next: null
}

export interface HeldFactor {
  access_token: string
  expires_at: string
  recovery_codes: string[]
}

export interface Identity {
  id: string
  provider: string
  issuer: string
  subject: string
  linked_by: string | null
  linked_at: string
  used_at: string | null
}

export interface IdentityChange {
  id_card?: string | null
  phone?: string | null
}

export interface LadderStep {
  after_seconds: number
  audience: string
  channels: string[]
}

export interface Latest {
  value: number | string | boolean
  at: string
}

export interface LimitTemplate {
  id: string
  place_id: string | null
  name: string
  limits: Record<string, number>
}

export interface LogLine {
  id: string
  at: string
  user_id: string | null
  username: string | null
  role: string | null
  action: string
  object: string
  object_id: string | null
  residents: string[]
  fields: string[]
  status: number | null
  channel: string | null
  address: string | null
  place: number | null
}

export interface Login {
  username: string
  password: string
  totp?: string | null
}

export interface Me {
  id: string
  username: string
  role: 'admin' | 'supervisor' | 'nurse' | 'family' | 'integrator'
  place_id: string | null
  expires_at: string
  family: Record<string, string[]>
  rights: string[]
  method: 'password' | 'oidc' | 'wecom'
  second_factor: boolean
  limited: 'password' | 'second-factor' | null
}

export interface Measured {
  today: number | null
  usual: Band | null
  days: number
  hours: OfHour[]
}

export interface Mending {
  cells?: Record<string, Record<string, string>>
  left_out?: number[]
  put_back?: number[]
}

export interface ModeChange {
  mode: 'shadow' | 'alarming' | 'off'
  place_id?: string | null
  why: string
}

export interface NewAssignment {
  resident_id: string | null
  since?: string | null
}

export interface NewCommand {
  name: string
  args?: Record<string, unknown>
}

export interface NewConsent {
  given_by?: 'elder' | 'guardian' | 'unstated'
  relation?: string | null
  how?: 'paper' | 'in_person' | 'app' | 'unstated'
  given_at?: string | null
  until_at?: string | null
  purpose: 'family' | 'care' | 'research'
  user_id?: string | null
  scopes: ('status' | 'vitals' | 'alarms' | 'events' | 'location' | 'video')[]
}

export interface NewContact {
  channel: string
  address: string
  secret?: string
  user_id?: string | null
  place_id?: string | null
  office?: 'robot' | 'rescue_point' | 'rescue_centre' | 'supervisor' | null
  enabled?: boolean
}

export interface NewDevice {
  id?: string | null
  kind: 'bed_sensor' | 'wearable' | 'call_button' | 'cuff' | 'thermometer' | 'scale' | 'oximeter' | 'radar' | 'smoke' | 'door' | 'gateway' | 'other'
  name?: string
  place_id?: string | null
}

export interface NewEnrolment {
  kind: 'bed_sensor' | 'wearable' | 'call_button' | 'cuff' | 'thermometer' | 'scale' | 'oximeter' | 'radar' | 'smoke' | 'door' | 'gateway' | 'other'
  name?: string
  place_id?: string | null
  resident_id?: string | null
  gateway_id?: string | null
  device_id?: string | null
}

export interface NewIdentity {
  provider: string
  subject: string
}

export interface NewLadder {
  place_id: string
  priority: 'low' | 'medium' | 'high'
  from_minute?: number
  to_minute?: number
  lease_seconds?: number
  steps: LadderStep[]
}

export interface NewLink {
  given_by?: 'elder' | 'guardian' | 'unstated'
  relation?: string | null
  how?: 'paper' | 'in_person' | 'app' | 'unstated'
  given_at?: string | null
  until_at?: string | null
  user_id: string
  scopes: ('status' | 'vitals' | 'alarms' | 'events' | 'location' | 'video')[]
}

export interface NewObservation {
  at?: string | null
  corrects?: string | null
  withdrawn?: boolean
  consciousness?: 'A' | 'C' | 'V' | 'P' | 'U' | null
  oxygen?: boolean | null
  hr?: number | null
  rr?: number | null
  spo2?: number | null
  temp?: number | null
  sbp?: number | null
  dbp?: number | null
}

export interface NewPassword {
  password: string
  new: string
  totp?: string | null
}

export interface NewPlace {
  parent_id?: string | null
  kind: 'district' | 'town' | 'village' | 'facility' | 'home' | 'room' | 'bed'
  name: string
  phone?: string | null
}

export interface NewRelative {
  name: string
  relation: string
  phone?: string | null
  guardian?: boolean
}

export interface NewResident {
  limits?: Record<string, number> | null
  name: string
  place_id: string
  sex?: 'female' | 'male' | 'unknown'
  born?: string | null
  care_level?: number | null
  fall_risk?: boolean
  wander_risk?: boolean
  spo2_scale?: number
  note?: string
}

export interface NewSecret {
  id: string
  secret: string
}

export interface NewTemplate {
  name: string
  place_id?: string | null
  limits: Record<string, number>
}

export interface NewUser {
  username: string
  password: string
  role: 'admin' | 'supervisor' | 'nurse' | 'family' | 'integrator'
  place_id?: string | null
}

export interface NewVisit {
  kind: 'visit' | 'meal' | 'bath' | 'medical' | 'cleaning' | 'rehabilitation' | 'errand' | 'other'
  at: string
  minutes?: number | null
  note?: string
}

export interface Night {
  date: string
  in_bed_at: string | null
  up_at: string | null
  minutes_in_bed: number
  exits: number
}

export interface Nights {
  last: Night | null
  usual: UsualNight | null
}

export interface Note {
  text: string
}

export interface Observation {
  id: string
  at: string
  recorded_at: string
  by: string | null
  corrects: string | null
  corrected_by: string | null
  withdrawn: boolean
  consciousness: 'A' | 'C' | 'V' | 'P' | 'U' | null
  oxygen: boolean | null
  hr: number | null
  rr: number | null
  spo2: number | null
  temp: number | null
  sbp: number | null
  dbp: number | null
}

export interface OfHour {
  hour: number
  low: number
  median: number
  high: number
  days: number
}

export interface OneTimePassword {
  password: string
  expires_at: string
}

export interface OwnConsent {
  resident_id: string
  scopes: string[]
  given_by: 'elder' | 'guardian' | 'unstated'
  relation: string | null
  how: 'paper' | 'in_person' | 'app' | 'unstated'
  given_at: string
  until_at: string | null
  withdrawn_at: string | null
  in_force: boolean
}

export interface OwnSession {
  id: string
  created_at: string
  used_at: string
  expires_at: string
  address: string
  device: string
  current: boolean
}

export interface Page_Access {
  items: Access[]
  next: string | null
}

export interface Page_Answer {
  items: Answer[]
  next: string | null
}

export interface Page_CareEvent {
  items: CareEvent[]
  next: string | null
}

export interface Page_Command {
  items: Command[]
  next: string | null
}

export interface Page_Consent {
  items: Consent[]
  next: string | null
}

export interface Page_Device {
  items: Device[]
  next: string | null
}

export interface Page_Enrolment {
  items: Enrolment[]
  next: string | null
}

export interface Page_Erasure {
  items: Erasure[]
  next: string | null
}

export interface Page_FamilyLink {
  items: FamilyLink[]
  next: string | null
}

export interface Page_Found {
  items: Found[]
  next: string | null
}

export interface Page_Identity {
  items: Identity[]
  next: string | null
}

export interface Page_LimitTemplate {
  items: LimitTemplate[]
  next: string | null
}

export interface Page_LogLine {
  items: LogLine[]
  next: string | null
}

export interface Page_Observation {
  items: Observation[]
  next: string | null
}

export interface Page_OwnConsent {
  items: OwnConsent[]
  next: string | null
}

export interface Page_OwnSession {
  items: OwnSession[]
  next: string | null
}

export interface Page_Place {
  items: Place[]
  next: string | null
}

export interface Page_ProviderOffer {
  items: ProviderOffer[]
  next: string | null
}

export interface Page_SeenAlarm {
  items: SeenAlarm[]
  next: string | null
}

export interface Page_SeenBackup {
  items: SeenBackup[]
  next: string | null
}

export interface Page_SeenContact {
  items: SeenContact[]
  next: string | null
}

export interface Page_SeenDelivery {
  items: SeenDelivery[]
  next: string | null
}

export interface Page_SeenImport {
  items: SeenImport[]
  next: string | null
}

export interface Page_SeenLadder {
  items: SeenLadder[]
  next: string | null
}

export interface Page_SeenLine {
  items: SeenLine[]
  next: string | null
}

export interface Page_SeenModel {
  items: SeenModel[]
  next: string | null
}

export interface Page_SeenRejected {
  items: SeenRejected[]
  next: string | null
}

export interface Page_SeenRelative {
  items: SeenRelative[]
  next: string | null
}

export interface Page_SeenResident {
  items: SeenResident[]
  next: string | null
}

export interface Page_SeenRow {
  items: SeenRow[]
  next: string | null
}

export interface Page_SeenSelfTest {
  items: SeenSelfTest[]
  next: string | null
}

export interface Page_SeenStation {
  items: SeenStation[]
  next: string | null
}

export interface Page_StoredShift {
  items: StoredShift[]
  next: string | null
}

export interface Page_TimelineLine {
  items: TimelineLine[]
  next: string | null
}

export interface Page_User {
  items: User[]
  next: string | null
}

export interface Page_Visit {
  items: Visit[]
  next: string | null
}

export interface Place {
  id: string
  parent_id: string | null
  kind: 'district' | 'town' | 'village' | 'facility' | 'home' | 'room' | 'bed'
  name: string
  phone: string | null
}

export interface PlaceChange {
  name?: string | null
  phone?: string | null
}

export interface Problem {
  type?: string
  title: string
  status: number
  detail: string
  errors?: FieldError[] | null
}

export interface ProviderOffer {
  name: string
  zh: string
  en: string
  confirms: boolean
}

export interface PushKey {
  key: string | null
}

export interface Quiet {
  from?: string | null
  until?: string | null
  only_urgent?: boolean
}

export interface Redemption {
  code: string
  id?: string | null
}

export interface Renewal {
  overlap_seconds?: number
}

export interface Renewed {
  access_token: string
  expires_at: string
}

export interface ResidentChange {
  limits?: Record<string, number> | null
  name?: string | null
  place_id?: string | null
  sex?: 'female' | 'male' | 'unknown' | null
  born?: string | null
  care_level?: number | null
  fall_risk?: boolean | null
  wander_risk?: boolean | null
  spo2_scale?: number | null
  note?: string | null
}

export interface Risk {
  resident_id: string
  at: string | null
  data_at: string | null
  stale: boolean
  score: number | null
  possible_min: number | null
  possible_max: number | null
  complete: boolean | null
  band: 'low' | 'low-medium' | 'medium' | 'high' | null
  deterioration: number | null
  novelty: number | null
  priority: 'low' | 'medium' | 'high' | null
  model: string | null
  sentence: Record<string, string> | null
  explanation: Record<string, unknown> | null
  usual: Record<string, unknown>
  modes: Record<string, 'shadow' | 'alarming' | 'off'>
}

export interface Search {
  id_card?: string | null
  phone?: string | null
}

export interface Secret {
  id: string
  secret: string
}

export interface SeenAlarm {
  id: string
  resident_id: string | null
  place_id: string | null
  device_id: string | null
  kind: string
  class: string
  priority: 'low' | 'medium' | 'high'
  condition: string
  handling: 'open' | 'acknowledged' | 'on_site' | 'closed'
  outcome: 'real' | 'false' | 'test' | 'unknown' | null
  count: number
  raised_at: string
  last_at: string
  event_at: string
  late: boolean
  owner: string | null
  snoozed_until: string | null
  condition_delay_s: number
  signal_delay_s: number | null
  detail: Record<string, unknown>
  actions: ('acknowledge' | 'arrive' | 'close' | 'snooze' | 'note')[]
}

export interface SeenAnswering {
  place_id: string | null
  station: string | null
  from: string | null
  to: string | null
  alarms: number
  calls: number
  answered_60_s: number | null
  answered_180_s: number | null
  goal_met: boolean | null
  unanswered: number
  arrival_median_s: number | null
  arrival_p90_s: number | null
  outcomes: Record<string, number>
  alarms_per_bed_day: number | null
  needed_action: number | null
  burden: number
  burden_line: string
}

export interface SeenBackup {
  id: string
  made_at: string
  file: string
  bytes: number
  rows: number
  tables: number
  encrypted: boolean
  version: string
  verified_at: string
}

export interface SeenChannel {
  name: string
  receipts: ('sent' | 'delivered' | 'displayed')[]
  most_per_minute: number | null
  missing: string | null
}

export interface SeenContact {
  id: string
  user_id: string | null
  username: string | null
  place_id: string | null
  office: 'robot' | 'rescue_point' | 'rescue_centre' | 'supervisor' | null
  channel: string
  address: string
  has_secret: boolean
  enabled: boolean
  failures: number
  failing_since: string | null
  last_ok_at: string | null
  last_error: string | null
  created_at: string
}

export interface SeenDelivery {
  id: string
  round: number
  step: number
  audience: string
  user_id: string | null
  username: string | null
  contact_id: string | null
  channel: string
  state: string
  due_at: string
  attempts: number
  created_at: string
  sent_at: string | null
  delivered_at: string | null
  displayed_at: string | null
  error: string | null
}

export interface SeenFault {
  field: string
  zh: string
  en: string
}

export interface SeenHeading {
  text: string
  field: string | null
}

export interface SeenHealth {
  place_id: string | null
  station: string | null
  devices: number
  assigned: number
  online: number
  silent: number
  never_heard: number
  sensor_error: number
  battery_low: number
  battery_critical: number
  battery_unknown: number
  quarantined: number
  firmware: Record<string, Record<string, number>>
}

export interface SeenIdentity {
  id_card: string | null
  phone: string | null
  differs: ('born' | 'sex')[]
}

export interface SeenImport {
  id: string
  kind: 'residents' | 'devices'
  name: string
  place_id: string | null
  created_at: string
  expires_at: string
  columns: SeenHeading[]
  counts: Record<string, number>
  done: number
  applied_at: string | null
}

export interface SeenLadder {
  id: string
  place_id: string
  priority: 'low' | 'medium' | 'high'
  from_minute: number
  to_minute: number
  lease_seconds: number
  steps: LadderStep[]
}

export interface SeenLimit {
  default: number
  low: number
  high: number
  unit: string
}

export interface SeenLine {
  at: string
  score: number
  possible_min: number
  possible_max: number
  complete: boolean
  band: 'low' | 'low-medium' | 'medium' | 'high'
  deterioration: number | null
  novelty: number | null
  priority: 'low' | 'medium' | 'high' | null
  model: string
}

export interface SeenMode {
  place_id: string | null
  mode: 'shadow' | 'alarming' | 'off'
  since: string
  why: string
  by: string | null
}

export interface SeenModel {
  model: 'news2' | 'deterioration' | 'novelty' | 'rhythm'
  kind: string
  version: string
  at: string | null
  fault: string | null
  drift: Record<string, unknown> | null
  budget: number | null
  card: Record<string, unknown> | null
  modes: SeenMode[]
  days: number
  stations: SeenRate[]
}

export interface SeenQuiet {
  from: string | null
  until: string | null
  only_urgent: boolean
}

export interface SeenRate {
  place_id: string
  residents: number
  alarms: number
  real: number
  false: number
  predicted: number | null
  planned: number | null
  achieved: number
}

export interface SeenRejected {
  id: string
  received_at: string
  device_id: string
  kind: string
  reason: string
  size: number
  payload: string
  payload_base64: string
}

export interface SeenRelative {
  id: string
  relation: string
  guardian: boolean
  name: string
  phone: string | null
  created_at: string
}

export interface SeenResident {
  id: string
  name: string
  sex: 'female' | 'male' | 'unknown'
  born: string | null
  place_id: string
  care_level: number | null
  fall_risk?: boolean | null
  wander_risk?: boolean | null
  spo2_scale?: number | null
  limits?: Record<string, number> | null
  note?: string | null
  created_at?: string | null
}

export interface SeenRow {
  number: number
  cells: Record<string, string>
  action: 'create' | 'change' | 'same' | 'fault' | 'left_out'
  resident_id: string | null
  device_id: string | null
  changes: string[]
  faults: SeenFault[]
  hints: SeenFault[]
}

export interface SeenSelfTest {
  id: string
  place_id: string
  started_at: string
  alarm_id: string | null
  displayed_at: string | null
  failed: string | null
}

export interface SeenStation {
  id: string
  username: string
  screen: string
  place_id: string | null
  condition: 'well' | 'off_duty' | 'station_gone' | 'station_asleep' | 'station_muted'
  seen_at: string
  sound: 'on' | 'muted' | 'unknown'
  visible: boolean
  proved_at: string | null
  on_duty: boolean
}

export interface Session {
  access_token: string
  token_type: string
  expires_at: string
  user: User
  limited: 'password' | 'second-factor' | null
}

export interface Shift {
  place_id: string
  user_id: string
  post: 'first' | 'second' | 'supervisor'
  begins_at: string
  ends_at: string
  stands_in_for?: string | null
  note?: string
}

export interface Shifts {
  items: Shift[]
}

export interface Snooze {
  until: string
}

export interface Station {
  name: string | null
  phone: string | null
}

export interface Status {
  state: 'well' | 'attention' | 'emergency' | 'unknown'
  since: string | null
  heard_at: string | null
  latest: Record<string, Latest>
  presence: 'present' | 'absent' | 'unknown' | null
  open_alarms: number
  monitored: boolean
  monitoring: 'present' | 'absent' | 'network-error' | 'sensor-error' | 'undeployed'
}

export interface StoredShift {
  id: string
  place_id: string
  user_id: string
  post: 'first' | 'second' | 'supervisor'
  begins_at: string | null
  ends_at: string | null
  stands_in_for: string | null
  note: string
}

export interface Target {
  resident_ids?: string[] | null
  place_id?: string | null
}

export interface Ticket {
  ticket: string
}

export interface TimelineLine {
  id: string
  at: string
  change: string
  actor: string
  channel: string
  note: string | null
  cursor: number | null
  handling: 'open' | 'acknowledged' | 'on_site' | 'closed'
  priority: 'low' | 'medium' | 'high'
  condition: string
}

export interface Tried {
  ok: boolean
  outcome: 'sent' | 'failed' | 'passing'
  zh: string
  en: string
}

export interface User {
  id: string
  username: string
  role: 'admin' | 'supervisor' | 'nurse' | 'family' | 'integrator'
  place_id: string | null
  disabled_at?: string | null
}

export interface UserChange {
  password?: string | null
  disabled?: boolean | null
}

export interface Usual {
  until: string
  zone: string
  metrics: Record<string, Measured>
  nights: Nights
}

export interface UsualNight {
  nights: number
  minutes_in_bed: number
  exits: number
  in_bed_minute: number | null
  up_minute: number | null
}

export interface Verdict {
  place_id: string | null
  priority: 'low' | 'medium' | 'high'
  from_minute: number
  to_minute: number
  lease_seconds: number
  steps: LadderStep[]
  faults: Fault[]
}

export interface Visit {
  id: string
  resident_id: string
  kind: 'visit' | 'meal' | 'bath' | 'medical' | 'cleaning' | 'rehabilitation' | 'errand' | 'other'
  at: string
  minutes: number | null
  note: string
  recorded_at: string
}

export interface Answers {
  'GET /alarms': Page_SeenAlarm
  'GET /alarms/{alarm_id}': SeenAlarm
  'POST /alarms/{alarm_id}/acknowledge': SeenAlarm
  'GET /alarms/{alarm_id}/answers': Page_Answer
  'POST /alarms/{alarm_id}/arrive': SeenAlarm
  'POST /alarms/{alarm_id}/close': SeenAlarm
  'GET /alarms/{alarm_id}/deliveries': Page_SeenDelivery
  'POST /alarms/{alarm_id}/note': SeenAlarm
  'POST /alarms/{alarm_id}/snooze': SeenAlarm
  'GET /alarms/{alarm_id}/timeline': Page_TimelineLine
  'GET /audit': Page_LogLine
  'POST /auth/login': Session
  'POST /auth/logout': undefined
  'GET /auth/providers': Page_ProviderOffer
  'GET /auth/providers/{provider}/callback': undefined
  'GET /auth/providers/{provider}/login': undefined
  'POST /auth/step-up': Renewed
  'GET /backups': Page_SeenBackup
  'GET /channels': SeenChannel[]
  'GET /channels/web_push/key': PushKey
  'POST /channels/{channel}/reports/{token}': unknown
  'GET /contacts': Page_SeenContact
  'POST /contacts': SeenContact
  'PATCH /contacts/{contact_id}': SeenContact
  'DELETE /contacts/{contact_id}': undefined
  'POST /contacts/{contact_id}/test': Tried
  'GET /devices': Page_Device
  'POST /devices': Secret
  'GET /devices/{device_id}': Device
  'PATCH /devices/{device_id}': Device
  'DELETE /devices/{device_id}': undefined
  'PUT /devices/{device_id}/assignment': Device
  'GET /devices/{device_id}/commands': Page_Command
  'POST /devices/{device_id}/commands': Command
  'POST /devices/{device_id}/secret': Secret
  'POST /enrol': Enrolled
  'GET /enrolments': Page_Enrolment
  'POST /enrolments': Code
  'DELETE /enrolments/{enrolment_id}': undefined
  'GET /erasures': Page_Erasure
  'POST /erasures/{erasure_id}/approve': Erasure
  'POST /erasures/{erasure_id}/refuse': Erasure
  'GET /exports/{kind}': undefined
  'GET /exports/{kind}/template': undefined
  'GET /imports': Page_SeenImport
  'POST /imports': SeenImport
  'GET /imports/{import_id}': SeenImport
  'DELETE /imports/{import_id}': undefined
  'POST /imports/{import_id}/apply': Applied
  'POST /imports/{import_id}/mend': SeenImport
  'GET /imports/{import_id}/rows': Page_SeenRow
  'GET /ladders': Page_SeenLadder
  'PUT /ladders': SeenLadder
  'GET /ladders/verdict': Verdict[]
  'POST /ladders/verdict': Fault[]
  'DELETE /ladders/{ladder_id}': undefined
  'GET /limit-templates': Page_LimitTemplate
  'POST /limit-templates': LimitTemplate
  'DELETE /limit-templates/{template_id}': undefined
  'POST /limit-templates/{template_id}/apply': Changed
  'GET /limits': Record<string, SeenLimit>
  'GET /me': Me
  'GET /me/consents': Page_OwnConsent
  'POST /me/password': Renewed
  'GET /me/quiet-hours': SeenQuiet
  'PUT /me/quiet-hours': SeenQuiet
  'GET /me/sessions': Page_OwnSession
  'DELETE /me/sessions': undefined
  'DELETE /me/sessions/{session_id}': undefined
  'POST /me/totp': BegunFactor
  'DELETE /me/totp': undefined
  'POST /me/totp/confirm': HeldFactor
  'GET /models': Page_SeenModel
  'PUT /models/{model_id}/mode': SeenMode
  'POST /people/search': Page_Found
  'GET /places': Page_Place
  'POST /places': Place
  'GET /places/{place_id}': Place
  'PATCH /places/{place_id}': Place
  'GET /quarantine': Page_SeenRejected
  'GET /quarantine/{rejected_id}': SeenRejected
  'GET /reports/answering': AnsweringReport
  'GET /reports/devices': HealthReport
  'GET /residents': Page_SeenResident
  'POST /residents': SeenResident
  'GET /residents/{resident_id}': SeenResident
  'PATCH /residents/{resident_id}': SeenResident
  'GET /residents/{resident_id}/access': Page_Access
  'GET /residents/{resident_id}/consents': Page_Consent
  'POST /residents/{resident_id}/consents': Consent
  'DELETE /residents/{resident_id}/consents/{consent_id}': undefined
  'POST /residents/{resident_id}/erase': Erasure
  'GET /residents/{resident_id}/events': Page_CareEvent
  'GET /residents/{resident_id}/export': undefined
  'GET /residents/{resident_id}/family': Page_FamilyLink
  'POST /residents/{resident_id}/family': FamilyLink
  'DELETE /residents/{resident_id}/family/{user_id}': undefined
  'GET /residents/{resident_id}/identity': SeenIdentity
  'PUT /residents/{resident_id}/identity': SeenIdentity
  'POST /residents/{resident_id}/identity/reveal': Disclosure
  'GET /residents/{resident_id}/observations': Page_Observation
  'POST /residents/{resident_id}/observations': Observation
  'GET /residents/{resident_id}/relatives': Page_SeenRelative
  'POST /residents/{resident_id}/relatives': SeenRelative
  'DELETE /residents/{resident_id}/relatives/{relative_id}': undefined
  'GET /residents/{resident_id}/risk': Risk
  'GET /residents/{resident_id}/risk/history': Page_SeenLine
  'GET /residents/{resident_id}/station': Station
  'GET /residents/{resident_id}/status': Status
  'GET /residents/{resident_id}/usual': Usual
  'GET /residents/{resident_id}/visits': Page_Visit
  'POST /residents/{resident_id}/visits': Visit
  'DELETE /residents/{resident_id}/visits/{visit_id}': undefined
  'GET /residents/{resident_id}/vitals': Record<string, number[][]>
  'GET /self-tests': Page_SeenSelfTest
  'GET /shifts': Page_StoredShift
  'POST /shifts': StoredShift[]
  'DELETE /shifts/{shift_id}': undefined
  'GET /stations': Page_SeenStation
  'POST /stream/tickets': Ticket
  'GET /users': Page_User
  'POST /users': User
  'PATCH /users/{user_id}': User
  'GET /users/{user_id}/identities': Page_Identity
  'POST /users/{user_id}/identities': Identity
  'DELETE /users/{user_id}/identities/{identity_id}': undefined
  'POST /users/{user_id}/password': OneTimePassword
  'GET /users/{user_id}/sessions': Page_OwnSession
  'DELETE /users/{user_id}/sessions': undefined
  'DELETE /users/{user_id}/totp': undefined
}
