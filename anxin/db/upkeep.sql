-- name: roll_up
SELECT roll_up(now() - %(settle)s * interval '1 second', %(most)s) AS rolled

-- name: partitions_may_change
-- Not while a backup reads (anxin/db/dump.sql holds this lock): a change would wait for it, and every
-- writer behind the change. There are partitions for the next two weeks.
SELECT pg_try_advisory_xact_lock(4155024) AS free

-- name: add_partitions
SELECT add_partition(now() + n * interval '7 days') FROM generate_series(0, 2) AS n

-- name: drop_partitions
SELECT drop_partitions(now() - %(days)s * interval '1 day') AS dropped

-- name: forget_old
WITH a AS (DELETE FROM quarantine WHERE received_at < now() - %(quarantine_days)s * interval '1 day'),
     b AS (DELETE FROM device_changes WHERE at < now() - interval '1 day'),
     c AS (DELETE FROM login_attempts WHERE at < now() - interval '1 day'),
     d AS (DELETE FROM tickets WHERE expires_at < now()),
     e AS (DELETE FROM sessions WHERE expires_at < now() - interval '1 day'),
     g AS (DELETE FROM imports WHERE expires_at < now()),
     f AS (DELETE FROM listening WHERE until_at < now() - interval '30 days'
                                   AND id < (SELECT max(id) FROM listening))
SELECT 1

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
-- Faults of devices and stations are others' business: here it is only the platform's own.
SELECT DISTINCT ON (subject, kind) subject, kind, priority, condition, handling, closed_at, detail
FROM alarms
WHERE (kind = ANY(%(kinds)s) OR (kind = 'device_fault' AND subject = 'platform'))
  AND (handling <> 'closed' OR closed_at > now() - %(bundle)s * interval '1 second')
ORDER BY subject, kind, id DESC

-- name: clock
SELECT now() AS now

-- name: one_worker
SELECT pg_try_advisory_xact_lock(4155023) AS mine

-- name: forget_events
DELETE FROM events WHERE (device_key, id) IN (
    SELECT device_key, id FROM events
    WHERE received_at < now() - %(days)s * interval '1 day' LIMIT %(most)s)

-- name: forget_commands
DELETE FROM commands WHERE id IN (
    SELECT id FROM commands WHERE created_at < now() - %(days)s * interval '1 day' LIMIT %(most)s)

-- name: forget_alarms
DELETE FROM alarms WHERE id IN (
    SELECT id FROM alarms
    WHERE handling = 'closed' AND raised_at < now() - %(days)s * interval '1 day'
      AND closed_at < now() - %(days)s * interval '1 day' LIMIT %(most)s)

-- name: forget_self_test_alarms
DELETE FROM alarms WHERE id IN (
    SELECT id FROM alarms
    WHERE handling = 'closed' AND detail @> '{"selftest": true}'
      AND raised_at < now() - %(days)s * interval '1 day' LIMIT %(most)s)

-- name: forget_deliveries
DELETE FROM deliveries WHERE id IN (
    SELECT d.id FROM deliveries d LEFT JOIN alarms a ON a.id = d.alarm_id
    WHERE d.created_at < now() - %(days)s * interval '1 day'
      AND coalesce(a.handling = 'closed', true) LIMIT %(most)s)

-- name: forget_risk_history
DELETE FROM risk_history WHERE (resident_id, at) IN (
    SELECT resident_id, at FROM risk_history
    WHERE at < now() - %(days)s * interval '1 day' LIMIT %(most)s)

-- name: forget_rollups
SELECT forget_rollups_before(now() - %(minute_days)s * interval '1 day',
                             now() - %(hour_days)s * interval '1 day') AS gone
