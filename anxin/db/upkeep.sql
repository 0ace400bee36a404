-- name: roll_up
SELECT roll_up(now() - %(settle)s * interval '1 second', %(most)s) AS rolled

-- name: add_partitions
SELECT add_partition(now() + n * interval '7 days') FROM generate_series(0, 2) AS n

-- name: drop_partitions
SELECT drop_partitions(now() - %(days)s * interval '1 day') AS dropped

-- name: forget_old
WITH a AS (DELETE FROM quarantine WHERE received_at < now() - %(quarantine_days)s * interval '1 day'),
     b AS (DELETE FROM device_changes WHERE at < now() - interval '1 day'),
     c AS (DELETE FROM login_attempts WHERE at < now() - interval '1 day'),
     d AS (DELETE FROM tickets WHERE expires_at < now()),
     e AS (DELETE FROM sessions WHERE expires_at < now() - interval '1 day')
SELECT 1

-- name: silent
-- Devices not heard from for longer than their kind allows. A device never heard since it was
-- assigned counts from the assignment on; what a device sent for somebody else before is no sign.
SELECT 'r' || r.id AS subject, r.id AS resident_id, r.place_id, d.key AS device_key,
       d.id AS device_id, heard.at AS heard_at, coalesce(r.care_level, 0) AS care_level
FROM assignments a
JOIN devices d ON d.key = a.device_key AND d.revoked_at IS NULL
JOIN residents r ON r.id = a.resident_id
JOIN unnest(%(kinds)s::text[], %(seconds)s::integer[], %(measured)s::boolean[])
     AS patience (kind, seconds, measured) ON patience.kind = d.kind
LEFT JOIN latest l ON l.device_key = d.key
LEFT JOIN device_states s ON s.device_key = d.key
CROSS JOIN LATERAL (
    SELECT CASE WHEN patience.measured THEN l.received_at
                ELSE greatest(l.received_at, s.heard_at) END AS at
) AS heard
WHERE a.during @> now()
  AND CASE WHEN heard.at > lower(a.during)
           THEN heard.at < now() - patience.seconds * interval '1 second'
           ELSE lower(a.during) < now()
                - greatest(patience.seconds, %(first_seconds)s) * interval '1 second' END
ORDER BY subject, device_key

-- name: beds
-- Residents whose bed or radar device tells of presence, with fresh news.
SELECT 'r' || r.id AS subject, r.id AS resident_id, r.place_id, d.key AS device_key,
       l.absent_since, l.present_since, r.fall_risk
FROM latest l
JOIN devices d ON d.key = l.device_key AND d.kind IN ('bed_sensor', 'radar')
JOIN assignments a ON a.device_key = d.key AND a.during @> now()
JOIN residents r ON r.id = a.resident_id
WHERE l.absent_since IS NOT NULL AND l.received_at > now() - interval '10 minutes'

-- name: inactive
-- Residents with a device that notices activity and is being heard, and when they last moved.
SELECT 'r' || r.id AS subject, r.id AS resident_id, r.place_id, max(l.active_at) AS active_at
FROM latest l
JOIN assignments a ON a.device_key = l.device_key AND a.during @> now()
JOIN residents r ON r.id = a.resident_id
GROUP BY r.id
HAVING max(l.active_at) < now() - %(seconds)s * interval '1 second'
   AND max(l.received_at) > now() - interval '10 minutes'

-- name: watched_episodes
-- Open episodes of these kinds, and those closed so lately that the same condition is no news.
SELECT DISTINCT ON (subject, kind) subject, kind, priority, condition, handling
FROM alarms
WHERE kind = ANY(%(kinds)s)
  AND (handling <> 'closed' OR closed_at > now() - %(bundle)s * interval '1 second')
ORDER BY subject, kind, id DESC

-- name: clock
SELECT now() AS now

-- name: one_worker
SELECT pg_try_advisory_xact_lock(4155023) AS mine
