-- name: person
SELECT r.id::text, r.name, r.sex, r.born, r.care_level, r.fall_risk, r.wander_risk, r.spo2_scale,
       r.limits, r.note, r.created_at,
       (SELECT array_agg(q.name ORDER BY length(q.path)) FROM places q
        WHERE starts_with(p.path, q.path)) AS places
FROM residents r JOIN places p ON p.id = r.place_id
WHERE r.id = %(id)s AND starts_with(p.path, %(path)s::text)

-- name: assignments
SELECT s.id, d.id AS device_id, d.kind, d.name, lower(s.during) AS since, upper(s.during) AS until
FROM assignments s JOIN devices d ON d.key = s.device_key
WHERE s.resident_id = %(id)s ORDER BY s.id

-- name: observations
SELECT o.at, o.recorded_at, o.consciousness, o.oxygen, o.hr, o.rr, o.spo2, o.temp, o.sbp, o.dbp,
       o.withdrawn, EXISTS (SELECT 1 FROM observations l WHERE l.corrects = o.id) AS corrected
FROM observations o WHERE o.resident_id = %(id)s ORDER BY o.at, o.id

-- name: visits
SELECT kind, at, minutes, note, recorded_at FROM visits WHERE resident_id = %(id)s ORDER BY at, id

-- name: readings
-- For who sees every row: the operator.
SELECT t.* FROM assignments s JOIN telemetry t ON t.device_key = s.device_key
    AND t.ts >= greatest(coalesce(lower(s.during), '-infinity'), %(from)s::timestamptz)
    AND t.ts < coalesce(upper(s.during), 'infinity')
WHERE s.id = %(assignment)s ORDER BY t.ts LIMIT %(most)s

-- name: exported
SELECT * FROM exported_readings(%(assignment)s, %(from)s::timestamptz, %(most)s)

-- name: count
SELECT count(*)::bigint AS readings FROM assignments s JOIN telemetry t
    ON t.device_key = s.device_key AND s.during @> t.ts WHERE s.resident_id = %(id)s

-- name: events
SELECT e.device_key, e.id, d.id AS device_id, e.type, e.ts, e.received_at, e.flags, e.detail
FROM assignments s
JOIN events e ON e.device_key = s.device_key AND s.during @> e.ts
JOIN devices d ON d.key = e.device_key
WHERE s.resident_id = %(id)s
  AND (e.ts, e.device_key, e.id) > (%(ts)s::timestamptz, %(key)s::integer, %(event)s::text)
ORDER BY e.ts, e.device_key, e.id LIMIT %(most)s

-- name: alarms
SELECT a.id::text, a.kind, a.class, a.priority, a.condition, a.handling, a.outcome, a.count,
       a.raised_at, a.last_at, a.event_at, a.late, a.closed_at, a.detail,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'at', t.at, 'change', t.change, 'actor', t.actor, 'channel', t.channel, 'note', t.note)
            ORDER BY t.id), '[]') FROM timeline t WHERE t.alarm_id = a.id) AS timeline,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'audience', d.audience, 'channel', d.channel, 'state', d.state, 'sent_at', d.sent_at)
            ORDER BY d.id), '[]') FROM deliveries d WHERE d.alarm_id = a.id) AS notices
FROM alarms a WHERE a.resident_id = %(id)s AND a.id > %(after)s ORDER BY a.id LIMIT %(most)s
