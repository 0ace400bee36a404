-- name: list
SELECT r.id::text, r.name, r.sex, r.born, r.place_id::text, r.care_level, r.fall_risk,
       r.wander_risk, r.spo2_scale, r.limits, r.note, r.created_at
FROM residents r JOIN places p ON p.id = r.place_id
WHERE (starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[]))
  AND (%(place_id)s::bigint IS NULL
       OR starts_with(p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
  AND (%(search)s::text IS NULL OR position(lower(%(search)s::text) IN lower(r.name)) > 0)
  AND r.id > %(after)s
ORDER BY r.id LIMIT %(limit)s

-- name: get
SELECT r.id::text, r.name, r.sex, r.born, r.place_id::text, r.care_level, r.fall_risk,
       r.wander_risk, r.spo2_scale, r.limits, r.note, r.created_at
FROM residents r JOIN places p ON p.id = r.place_id
WHERE r.id = %(id)s
  AND (starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[]))

-- name: create
INSERT INTO residents (name, sex, born, place_id, care_level, fall_risk, wander_risk, spo2_scale,
                       limits, note)
SELECT %(name)s, %(sex)s, %(born)s::date, p.id, %(care_level)s::smallint, %(fall_risk)s,
       %(wander_risk)s, %(spo2_scale)s, %(limits)s::jsonb, %(note)s
FROM places p WHERE p.id = %(place_id)s AND starts_with(p.path, %(path)s::text)
RETURNING id::text, name, sex, born, place_id::text, care_level, fall_risk, wander_risk,
          spo2_scale, limits, note, created_at

-- name: change
UPDATE residents r SET
    name = coalesce(%(name)s::text, r.name),
    sex = coalesce(%(sex)s::text, r.sex),
    born = CASE WHEN 'born' = ANY(%(given)s::text[]) THEN %(born)s::date ELSE r.born END,
    place_id = coalesce(%(place_id)s::bigint, r.place_id),
    care_level = CASE WHEN 'care_level' = ANY(%(given)s::text[])
                      THEN %(care_level)s::smallint ELSE r.care_level END,
    fall_risk = coalesce(%(fall_risk)s::boolean, r.fall_risk),
    wander_risk = coalesce(%(wander_risk)s::boolean, r.wander_risk),
    spo2_scale = coalesce(%(spo2_scale)s::smallint, r.spo2_scale),
    limits = coalesce(%(limits)s::jsonb, r.limits),
    note = coalesce(%(note)s::text, r.note)
FROM places p
WHERE r.id = %(id)s AND p.id = r.place_id AND starts_with(p.path, %(path)s::text)
RETURNING r.id::text, r.name, r.sex, r.born, r.place_id::text, r.care_level, r.fall_risk,
          r.wander_risk, r.spo2_scale, r.limits, r.note, r.created_at

-- name: signs
-- What the state of residents is made of: their devices' newest values since they have them, and
-- the alarms that are not closed. `heard` counts nothing from before the assignment.
SELECT r.id, p.path, now() AS at, d.devices, a.alarms,
    (SELECT max(c.closed_at) FROM (
        SELECT closed_at FROM alarms
        WHERE resident_id = r.id AND handling = 'closed' AND priority >= 2
        ORDER BY id DESC LIMIT 10) AS c) AS last_closed
FROM residents r JOIN places p ON p.id = r.place_id
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_array(
        extract(epoch FROM lower(s.during)),
        extract(epoch FROM greatest(t.heard_at, l.received_at)),
        l.metrics, m.state)), '[]') AS devices
    FROM assignments s
    JOIN devices v ON v.key = s.device_key AND v.revoked_at IS NULL
    LEFT JOIN device_states t ON t.device_key = s.device_key
    LEFT JOIN latest l ON l.device_key = s.device_key
    LEFT JOIN device_monitoring m ON m.device_key = s.device_key
    WHERE s.resident_id = r.id AND s.during @> now()
) AS d
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_array(
        m.priority, m.class, m.condition, extract(epoch FROM m.raised_at))), '[]') AS alarms
    FROM alarms m WHERE m.subject = 'r' || r.id AND m.handling <> 'closed'
) AS a
WHERE r.id = ANY(%(ids)s::bigint[])
  AND (starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[]))

-- name: stirred
-- Of whom something was heard since the last look, and who fell silent since then.
SELECT DISTINCT r.id
FROM assignments s
JOIN residents r ON r.id = s.resident_id
JOIN places p ON p.id = r.place_id
LEFT JOIN latest l ON l.device_key = s.device_key
LEFT JOIN device_states t ON t.device_key = s.device_key
WHERE s.during @> now()
  AND (EXISTS (SELECT 1 FROM unnest(%(paths)s::text[]) AS watched WHERE starts_with(p.path, watched))
       OR r.id = ANY(%(residents)s::bigint[]))
  AND (l.received_at > %(since)s OR t.heard_at > %(since)s
       OR (greatest(t.heard_at, l.received_at) > %(since)s - %(silence)s::interval
           AND greatest(t.heard_at, l.received_at) <= now() - %(silence)s::interval))

-- name: under
SELECT r.id FROM residents r JOIN places p ON p.id = r.place_id
WHERE starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[])
ORDER BY r.id LIMIT %(limit)s

-- name: events
SELECT e.device_key, v.id AS device_id, e.id, e.type, e.ts, e.received_at, e.detail
FROM assignments s
JOIN events e ON e.device_key = s.device_key AND s.during @> e.ts
JOIN devices v ON v.key = e.device_key
WHERE s.resident_id = %(id)s
  AND (%(before)s::timestamptz IS NULL
       OR (e.ts, e.device_key, e.id) < (%(before)s::timestamptz, %(key)s::integer, %(event)s::text))
ORDER BY e.ts DESC, e.device_key DESC, e.id DESC LIMIT %(limit)s
