-- name: note
SELECT note_audit(%(entries)s)

-- name: note_seen
-- Committed for whoever asks, and on the disk within the next moments: a reader does not wait for
-- the disk. Only a crash of the server itself could take the last of these with it.
SELECT set_config('synchronous_commit', 'off', true), note_audit(%(entries)s)

-- name: one_chainer
SELECT pg_try_advisory_xact_lock(4155024) AS mine

-- name: head
SELECT place, hash, seal FROM audit ORDER BY place DESC LIMIT 1

-- name: at_place
SELECT hash FROM audit WHERE place = %(place)s

-- name: checkpoint
SELECT place, hash, until, seal FROM audit_checkpoints ORDER BY place DESC LIMIT 1

-- name: tell_broken
-- Once while it lasts, and again a day after somebody closed it.
SELECT raise_alarm('p' || p.id || ':audit_broken', NULL, p.id, NULL, 'device_fault', 'technical',
                   2::smallint, clock_timestamp(), false, 1, %(detail)s::jsonb, 'worker')
FROM places p
WHERE p.parent_id IS NULL AND NOT EXISTS (
    SELECT 1 FROM alarms a
    WHERE a.subject = 'p' || p.id || ':audit_broken' AND a.kind = 'device_fault'
      AND (a.handling <> 'closed' AND a.condition = 'present'
           OR a.closed_at > now() - interval '1 day'))

-- name: tell_whole
SELECT recover_alarm(a.subject, 'device_fault', 'worker') FROM alarms a
WHERE a.kind = 'device_fault' AND a.detail ->> 'reason' = 'audit_broken'
  AND a.handling <> 'closed' AND a.condition = 'present'

-- name: waiting
SELECT id, at, user_id, role, path, action, object, object_id, residents, fields, status, channel,
       address
FROM audit_waiting ORDER BY id LIMIT %(limit)s

-- name: chain
SELECT chain_audit(%(ids)s::bigint[], %(places)s::bigint[], %(hashes)s::bytea[], %(seal)s)

-- name: oldest_head_until
-- The newest entry that is too old, with those that were chained together with it.
SELECT a.place, a.hash FROM audit a
WHERE a.seal IS NOT NULL AND a.place < (SELECT min(place) FROM audit WHERE at >= %(until)s)
ORDER BY a.place DESC LIMIT 1

-- name: forget
SELECT forget_audit(%(place)s, %(until)s, %(seal)s) AS removed

-- name: links
SELECT place, hash, seal, id, at, user_id, role, path, action, object, object_id, residents, fields,
       status, channel, address
FROM audit WHERE place > %(after)s AND (%(upto)s::bigint IS NULL OR place <= %(upto)s::bigint)
ORDER BY place LIMIT %(limit)s

-- name: span
-- The places of a time: entries stand in the order of their commits, so some of the neighbours'
-- times are within; the end goes on to the next seal, for without one nothing is proven.
WITH bounds AS (
    SELECT coalesce((SELECT min(place) FROM audit WHERE at >= coalesce(%(from)s::timestamptz, '-infinity')),
                    (SELECT max(place) + 1 FROM audit), 1) - 1 AS after,
           (SELECT max(place) FROM audit WHERE at < coalesce(%(to)s::timestamptz, 'infinity')) AS newest
)
SELECT b.after, coalesce(a.hash, c.hash) AS hash,
       greatest(b.after, (SELECT min(place) FROM audit WHERE place >= b.newest AND seal IS NOT NULL))
           AS last
FROM bounds b
LEFT JOIN audit a ON a.place = b.after
LEFT JOIN audit_checkpoints c ON c.place = b.after

-- name: counts
SELECT (SELECT count(*) FROM audit) AS links,
       (SELECT count(*) FROM audit_waiting WHERE at < now() - interval '5 minutes') AS stuck,
       (SELECT max(at) FROM audit) AS newest

-- name: log
-- Newest first; the number is the order of arrival.
SELECT l.id, l.at, l.user_id, u.username, l.role, l.action, l.object, l.object_id, l.residents,
       l.fields, l.status, l.channel, l.address, l.place
FROM audit_log l LEFT JOIN users u ON u.id = l.user_id
WHERE starts_with(coalesce(l.path, '/'), %(path)s::text)
  AND (%(user_id)s::bigint IS NULL OR l.user_id = %(user_id)s::bigint)
  AND (%(resident_id)s::bigint IS NULL OR l.residents @> ARRAY[%(resident_id)s::bigint])
  AND (%(action)s::text IS NULL OR l.action = %(action)s::text)
  AND (%(object)s::text IS NULL OR l.object = %(object)s::text)
  AND (%(from)s::timestamptz IS NULL OR l.at >= %(from)s::timestamptz)
  AND (%(to)s::timestamptz IS NULL OR l.at < %(to)s::timestamptz)
  AND (%(before)s::bigint IS NULL OR l.id < %(before)s::bigint)
ORDER BY l.id DESC LIMIT %(limit)s

-- name: access
SELECT * FROM access_to(%(resident_id)s, %(from)s, %(to)s, %(before)s, %(limit)s)

-- name: clock
SELECT now() AS now
