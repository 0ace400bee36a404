-- name: copy_telemetry
COPY telemetry (ts, received_at, device_key, flags, presence, consciousness, oxygen, hr, rr, spo2, temp, sbp, dbp, glucose, weight, steps, movement, battery, rssi, lat, lon, room_temp, humidity, seq, extra)
FROM STDIN (FORMAT binary)

-- name: copy_incoming
COPY incoming (ts, received_at, device_key, flags, presence, consciousness, oxygen, hr, rr, spo2, temp, sbp, dbp, glucose, weight, steps, movement, battery, rssi, lat, lon, room_temp, humidity, seq, extra)
FROM STDIN (FORMAT binary)

-- name: make_incoming
CREATE TEMPORARY TABLE IF NOT EXISTS incoming (LIKE telemetry INCLUDING DEFAULTS)
ON COMMIT DELETE ROWS

-- name: merge_incoming
-- What is stored stays; fields that it lacked are filled in. Only rows that brought something new
-- are returned, so a reading that was sent again triggers nothing again.
INSERT INTO telemetry AS t (ts, received_at, device_key, flags, presence, consciousness, oxygen, hr, rr, spo2, temp, sbp, dbp, glucose, weight, steps, movement, battery, rssi, lat, lon, room_temp, humidity, seq, extra)
SELECT ts, received_at, device_key, flags, presence, consciousness, oxygen, hr, rr, spo2, temp, sbp, dbp, glucose, weight, steps, movement, battery, rssi, lat, lon, room_temp, humidity, seq, extra FROM incoming
ORDER BY device_key, ts
ON CONFLICT (device_key, ts) DO UPDATE SET
    presence = coalesce(t.presence, excluded.presence),
    consciousness = coalesce(t.consciousness, excluded.consciousness),
    oxygen = coalesce(t.oxygen, excluded.oxygen),
    hr = coalesce(t.hr, excluded.hr),
    rr = coalesce(t.rr, excluded.rr),
    spo2 = coalesce(t.spo2, excluded.spo2),
    temp = coalesce(t.temp, excluded.temp),
    sbp = coalesce(t.sbp, excluded.sbp),
    dbp = coalesce(t.dbp, excluded.dbp),
    glucose = coalesce(t.glucose, excluded.glucose),
    weight = coalesce(t.weight, excluded.weight),
    steps = coalesce(t.steps, excluded.steps),
    movement = coalesce(t.movement, excluded.movement),
    battery = coalesce(t.battery, excluded.battery),
    rssi = coalesce(t.rssi, excluded.rssi),
    lat = coalesce(t.lat, excluded.lat),
    lon = coalesce(t.lon, excluded.lon),
    room_temp = coalesce(t.room_temp, excluded.room_temp),
    humidity = coalesce(t.humidity, excluded.humidity),
    seq = coalesce(t.seq, excluded.seq),
    extra = CASE WHEN excluded.extra IS NULL THEN t.extra
                 ELSE excluded.extra || coalesce(t.extra, '{}') END
WHERE (t.presence IS NULL AND excluded.presence IS NOT NULL)
   OR (t.consciousness IS NULL AND excluded.consciousness IS NOT NULL)
   OR (t.oxygen IS NULL AND excluded.oxygen IS NOT NULL)
   OR (t.hr IS NULL AND excluded.hr IS NOT NULL)
   OR (t.rr IS NULL AND excluded.rr IS NOT NULL)
   OR (t.spo2 IS NULL AND excluded.spo2 IS NOT NULL)
   OR (t.temp IS NULL AND excluded.temp IS NOT NULL)
   OR (t.sbp IS NULL AND excluded.sbp IS NOT NULL)
   OR (t.dbp IS NULL AND excluded.dbp IS NOT NULL)
   OR (t.glucose IS NULL AND excluded.glucose IS NOT NULL)
   OR (t.weight IS NULL AND excluded.weight IS NOT NULL)
   OR (t.steps IS NULL AND excluded.steps IS NOT NULL)
   OR (t.movement IS NULL AND excluded.movement IS NOT NULL)
   OR (t.battery IS NULL AND excluded.battery IS NOT NULL)
   OR (t.rssi IS NULL AND excluded.rssi IS NOT NULL)
   OR (t.lat IS NULL AND excluded.lat IS NOT NULL)
   OR (t.lon IS NULL AND excluded.lon IS NOT NULL)
   OR (t.room_temp IS NULL AND excluded.room_temp IS NOT NULL)
   OR (t.humidity IS NULL AND excluded.humidity IS NOT NULL)
   OR (t.seq IS NULL AND excluded.seq IS NOT NULL)
   OR NOT coalesce(t.extra, '{}') ?& ARRAY(SELECT jsonb_object_keys(excluded.extra))
RETURNING t.device_key, (extract(epoch FROM t.ts) * 1000000)::bigint AS ts_us

-- name: upsert_latest
-- 0 stands for "no such time".
WITH due AS (
    INSERT INTO rollup_due (device_key, minute)
    SELECT key, timestamptz 'epoch' + minute * interval '1 minute'
    FROM unnest(%(due_keys)s::bigint[], %(due_minutes)s::bigint[]) AS new (key, minute)
)
INSERT INTO latest AS l
    (device_key, ts, received_at, active_at, absent_since, present_since, metrics)
SELECT device_key, timestamptz 'epoch' + ts * interval '1 microsecond',
       timestamptz 'epoch' + received * interval '1 microsecond',
       timestamptz 'epoch' + nullif(active, 0) * interval '1 microsecond',
       timestamptz 'epoch' + nullif(absent, 0) * interval '1 microsecond',
       timestamptz 'epoch' + nullif(present, 0) * interval '1 microsecond',
       metrics::jsonb
FROM unnest(%(keys)s::bigint[], %(ts)s::bigint[], %(received)s::bigint[], %(active)s::bigint[],
            %(absent)s::bigint[], %(present)s::bigint[], %(metrics)s::text[])
     AS new (device_key, ts, received, active, absent, present, metrics)
ORDER BY device_key
ON CONFLICT (device_key) DO UPDATE SET
    ts = greatest(l.ts, excluded.ts),
    received_at = greatest(l.received_at, excluded.received_at),
    active_at = greatest(l.active_at, excluded.active_at),
    absent_since = CASE WHEN excluded.ts >= l.ts THEN excluded.absent_since
                        ELSE l.absent_since END,
    present_since = CASE WHEN excluded.ts >= l.ts THEN excluded.present_since
                         ELSE l.present_since END,
    metrics = CASE WHEN excluded.ts >= l.ts THEN l.metrics || excluded.metrics
                   ELSE newest_metrics(l.metrics, excluded.metrics) END

-- name: insert_events
INSERT INTO events (device_key, id, type, ts, received_at, flags, detail)
SELECT key, id, type, timestamptz 'epoch' + ts * interval '1 microsecond',
       timestamptz 'epoch' + received * interval '1 microsecond', flags, detail::jsonb
FROM unnest(%(keys)s::integer[], %(ids)s::text[], %(types)s::text[], %(ts)s::bigint[],
            %(received)s::bigint[], %(flags)s::smallint[], %(details)s::text[])
     AS new (key, id, type, ts, received, flags, detail)
ORDER BY key, id
ON CONFLICT (device_key, id) DO NOTHING
RETURNING device_key, id

-- name: raise_alarms
SELECT raise_alarm(subject, resident, place, device, kind, class, priority,
                   timestamptz 'epoch' + event_at * interval '1 microsecond', late, count,
                   detail::jsonb, actor)
FROM unnest(%(subjects)s::text[], %(residents)s::bigint[], %(places)s::bigint[],
            %(devices)s::integer[], %(kinds)s::text[], %(classes)s::text[],
            %(priorities)s::smallint[], %(event_ats)s::bigint[], %(lates)s::boolean[],
            %(counts)s::integer[], %(details)s::text[], %(actors)s::text[])
     WITH ORDINALITY AS new (subject, resident, place, device, kind, class, priority, event_at,
                             late, count, detail, actor, nr)
ORDER BY nr

-- name: recover_alarms
SELECT recover_alarm(subject, kind, actor)
FROM unnest(%(subjects)s::text[], %(kinds)s::text[], %(actors)s::text[])
     WITH ORDINALITY AS new (subject, kind, actor, nr)
ORDER BY nr

-- name: insert_quarantine
INSERT INTO quarantine (received_at, device_id, kind, reason, size, payload)
SELECT timestamptz 'epoch' + received * interval '1 microsecond', device, kind, reason, size,
       payload
FROM unnest(%(received)s::bigint[], %(devices)s::text[], %(kinds)s::text[], %(reasons)s::text[],
            %(sizes)s::integer[], %(payloads)s::bytea[])
     AS new (received, device, kind, reason, size, payload)

-- name: upsert_states
INSERT INTO device_states AS s
    (device_key, online, changed_at, heard_at, battery, rssi, firmware)
SELECT key, online, timestamptz 'epoch' + at * interval '1 microsecond',
       CASE WHEN heard THEN timestamptz 'epoch' + at * interval '1 microsecond' END,
       battery, rssi, firmware
FROM unnest(%(keys)s::integer[], %(onlines)s::boolean[], %(ats)s::bigint[], %(heards)s::boolean[],
            %(batteries)s::real[], %(rssis)s::real[], %(firmwares)s::text[])
     AS new (key, online, at, heard, battery, rssi, firmware)
ORDER BY key
ON CONFLICT (device_key) DO UPDATE SET
    -- What lay in a spool may be older than what is known; greatest() passes over NULL.
    changed_at = CASE WHEN excluded.online IS DISTINCT FROM s.online
                           AND excluded.online IS NOT NULL
                           AND excluded.changed_at >= greatest(s.changed_at, s.heard_at,
                                                               '-infinity')
                      THEN excluded.changed_at ELSE s.changed_at END,
    online = CASE WHEN excluded.changed_at >= greatest(s.changed_at, s.heard_at, '-infinity')
                  THEN coalesce(excluded.online, s.online) ELSE s.online END,
    heard_at = greatest(s.heard_at, excluded.heard_at),
    battery = coalesce(excluded.battery, s.battery),
    rssi = coalesce(excluded.rssi, s.rssi),
    firmware = coalesce(excluded.firmware, s.firmware)

-- name: finish_commands
UPDATE commands c SET ok = new.ok, result = new.result::jsonb, finished_at = now(),
    delivered_at = coalesce(delivered_at, now())
FROM unnest(%(keys)s::integer[], %(ids)s::bigint[], %(oks)s::boolean[], %(results)s::text[])
     AS new (key, id, ok, result)
WHERE c.id = new.id AND c.device_key = new.key AND c.finished_at IS NULL

-- name: waiting_commands
SELECT id, device_key, name, args FROM commands
WHERE delivered_at IS NULL AND finished_at IS NULL AND device_key = ANY(%(keys)s)
ORDER BY id

-- name: command_delivered
UPDATE commands SET delivered_at = now() WHERE id = %(id)s AND delivered_at IS NULL
