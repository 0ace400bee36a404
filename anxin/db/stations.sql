-- name: keep
-- A nurse who goes on duty at another screen has left the one that is silent since. The number of
-- screens is bounded, for their names are the client's own.
WITH left_behind AS (
    UPDATE stations SET on_duty = false
    WHERE %(on_duty)s AND user_id = %(user_id)s AND screen <> %(screen)s AND on_duty
      AND seen_at < now() - interval '30 seconds'
), forgotten AS (
    DELETE FROM stations WHERE user_id = %(user_id)s AND seen_at < now() - interval '30 days'
      AND screen <> %(screen)s
)
INSERT INTO stations AS s
    (user_id, screen, place_id, seen_at, sound, visible, visible_at, proved_at, on_duty, on_duty_at)
SELECT u.id, %(screen)s, u.place_id, now(), %(sound)s, %(visible)s, now(),
       least(%(proved_at)s::timestamptz, now()), %(on_duty)s, CASE WHEN %(on_duty)s THEN now() END
FROM users u
WHERE u.id = %(user_id)s
  AND (EXISTS (SELECT 1 FROM stations WHERE user_id = u.id AND screen = %(screen)s)
       OR (SELECT count(*) FROM stations WHERE user_id = u.id) < 50)
ON CONFLICT (user_id, screen) DO UPDATE SET
    place_id = excluded.place_id,
    seen_at = excluded.seen_at,
    sound = excluded.sound,
    visible = excluded.visible,
    visible_at = CASE WHEN excluded.visible THEN excluded.visible_at ELSE s.visible_at END,
    proved_at = excluded.proved_at,
    on_duty = excluded.on_duty,
    on_duty_at = coalesce(excluded.on_duty_at, s.on_duty_at)

-- name: list
SELECT s.id, s.user_id, u.username, s.screen, s.place_id, s.seen_at, s.sound, s.visible,
       s.visible_at, s.proved_at, s.on_duty, coalesce(p.path, '/') AS path, now() AS now
FROM stations s JOIN users u ON u.id = s.user_id LEFT JOIN places p ON p.id = s.place_id
WHERE starts_with(coalesce(p.path, '/'), %(path)s::text)
  AND (%(before)s::bigint IS NULL OR s.id < %(before)s::bigint)
ORDER BY s.id DESC LIMIT %(limit)s

-- name: one_worker
SELECT pg_try_advisory_xact_lock(4155031) AS mine, now() AS now

-- name: on_duty
-- Nobody is on duty for longer than a shift without a sign of it.
SELECT s.id, s.user_id, u.username, s.screen, s.place_id, s.seen_at, s.sound, s.visible,
       s.visible_at, s.proved_at, s.on_duty, p.path, now() AS now
FROM stations s JOIN users u ON u.id = s.user_id JOIN places p ON p.id = s.place_id
WHERE s.on_duty AND s.seen_at > now() - interval '12 hours' AND u.disabled_at IS NULL
ORDER BY s.user_id, s.screen

-- name: unmanned
-- Places with monitored residents that had a station on duty today and have none now.
SELECT p.id AS place_id, p.path, max(s.on_duty_at) AS since
FROM stations s JOIN places p ON p.id = s.place_id
WHERE s.on_duty_at > now() - interval '24 hours'
GROUP BY p.id, p.path
HAVING NOT bool_or(s.on_duty AND s.seen_at > now() - interval '12 hours')
   AND max(s.on_duty_at) < now() - %(patience)s * interval '1 second'
   AND EXISTS (SELECT 1 FROM places q
               JOIN residents r ON r.place_id = q.id
               JOIN assignments a ON a.resident_id = r.id AND a.during @> now()
               WHERE starts_with(q.path, p.path))

-- name: episodes
-- Open faults of stations, and those closed so lately that the same fault is no news.
SELECT DISTINCT ON (subject) subject, priority, condition, handling, detail
FROM alarms
WHERE kind = 'device_fault' AND detail ->> 'reason' = ANY(%(reasons)s::text[])
  AND (handling <> 'closed' OR closed_at > now() - %(bundle)s * interval '1 second')
ORDER BY subject, id DESC

-- name: hurry
-- What nobody at the station can hear goes on to the next step now. `next_step` is beyond the wall.
UPDATE escalations e SET due_at = now(), hurried_at = now()
FROM alarms a
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN devices v ON v.key = a.device_key
JOIN places p ON p.id = coalesce(r.place_id, a.place_id, v.place_id)
WHERE a.id = e.alarm_id AND a.handling = 'open' AND a.priority > 1
  AND (a.snoozed_until IS NULL OR a.snoozed_until <= now())
  AND e.next_step > 0 AND e.due_at > now()
  AND (e.hurried_at IS NULL OR e.hurried_at < now() - interval '10 minutes')
  AND EXISTS (SELECT 1 FROM unnest(%(deaf)s::text[]) AS d (path) WHERE starts_with(p.path, d.path))
  AND NOT EXISTS (SELECT 1 FROM unnest(%(well)s::text[]) AS w (path)
                  WHERE starts_with(p.path, w.path))

-- name: leave_self_tests
-- A run whose worker was killed has lost its lock, one whose worker stands still its time.
UPDATE self_tests t SET failed = 'interrupted', finished_at = clock_timestamp()
WHERE t.finished_at IS NULL
  AND (t.started_at < clock_timestamp() - %(longest)s * interval '1 second'
       OR NOT EXISTS (SELECT 1 FROM pg_locks l
                      WHERE l.locktype = 'advisory' AND l.classid = 4155033 AND l.granted
                        AND l.objid = t.id::integer::oid
                        AND l.database = (SELECT oid FROM pg_database
                                          WHERE datname = current_database())))

-- name: self_test_due
SELECT DISTINCT s.place_id FROM stations s
WHERE s.on_duty AND s.visible AND s.place_id IS NOT NULL
  AND s.seen_at > now() - interval '30 seconds'
  AND NOT EXISTS (SELECT 1 FROM self_tests t WHERE t.place_id = s.place_id
                  AND t.failed IS DISTINCT FROM 'interrupted'
                  AND t.started_at > now() - %(every)s * interval '1 second')
ORDER BY s.place_id LIMIT 20

-- name: begin_self_test
-- Of several workers one begins: the others find the lock taken, or the line there.
INSERT INTO self_tests (place_id)
SELECT %(place_id)s::bigint
WHERE pg_try_advisory_xact_lock(4155032, %(place_id)s::integer)
  AND NOT EXISTS (SELECT 1 FROM self_tests t WHERE t.place_id = %(place_id)s
                  AND t.failed IS DISTINCT FROM 'interrupted'
                  AND t.started_at > now() - %(every)s * interval '1 second')
RETURNING id

-- name: hold_self_test
-- Held for as long as the connection lives, and taken before anybody can see the line.
SELECT pg_advisory_lock(4155033, %(id)s::integer)

-- name: self_test_bed
WITH there AS (
    SELECT id FROM places
    WHERE parent_id = %(place_id)s AND kind = 'bed' AND name = %(name)s ORDER BY id LIMIT 1
), made AS (
    INSERT INTO places (parent_id, kind, name)
    SELECT %(place_id)s, 'bed', %(name)s WHERE NOT EXISTS (SELECT 1 FROM there)
    RETURNING id
)
SELECT id FROM there UNION ALL SELECT id FROM made

-- name: self_test_device
-- Not by way of `excluded`: the worker may write a secret and never read one.
INSERT INTO devices (id, kind, name, place_id, salt, secret_hash)
VALUES (%(id)s, 'other', %(name)s, %(bed_id)s, %(salt)s, %(secret_hash)s)
ON CONFLICT (id) DO UPDATE SET
    place_id = %(bed_id)s, salt = %(salt)s, secret_hash = %(secret_hash)s, revoked_at = NULL

-- name: self_test_alarm
-- Seen counts when a station on duty at this place has shown it.
SELECT a.id, (SELECT min(r.at) FROM receipts r
              JOIN stations s ON s.user_id = r.user_id AND s.place_id = %(place_id)s AND s.on_duty
              WHERE r.alarm_id = a.id AND r.kind = 'displayed') AS displayed_at
FROM alarms a JOIN devices d ON d.key = a.device_key
WHERE d.id = %(id)s AND a.detail @> '{"selftest": true}' AND a.handling <> 'closed'
ORDER BY a.id DESC LIMIT 1

-- name: close_self_tests
-- Also what comes late, out of a spool. Any worker does it, and never beside a run that goes on.
UPDATE alarms a SET handling = 'closed', outcome = 'test', closed_at = clock_timestamp()
WHERE a.handling <> 'closed' AND a.kind = 'sos' AND a.detail @> '{"selftest": true}'
  AND NOT EXISTS (SELECT 1 FROM self_tests t JOIN devices d ON d.key = a.device_key
                  WHERE t.finished_at IS NULL AND d.id = 'anxin-selftest-' || t.place_id)
RETURNING a.id

-- name: record_closed
SELECT record_change(a, 'closed', NULL, 'selftest', 'rule', NULL) FROM alarms a
WHERE a.id = ANY(%(ids)s::bigint[])

-- name: finish_self_test
UPDATE self_tests SET alarm_id = %(alarm_id)s, displayed_at = %(displayed_at)s, failed = %(failed)s,
    finished_at = clock_timestamp()
WHERE id = %(id)s AND finished_at IS NULL

-- name: self_tests
SELECT t.id::text, t.place_id::text, t.started_at, t.alarm_id::text, t.displayed_at, t.failed
FROM self_tests t JOIN places p ON p.id = t.place_id
WHERE starts_with(p.path, %(path)s::text) AND (%(before)s::bigint IS NULL OR t.id < %(before)s)
ORDER BY t.id DESC LIMIT %(limit)s

-- name: forget_self_tests
DELETE FROM self_tests WHERE started_at < now() - interval '30 days'
