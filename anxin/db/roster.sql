-- name: ladders_of
SELECT id, place_id, priority, from_minute, to_minute, lease_seconds, steps FROM ladders
WHERE place_id = ANY(%(places)s::bigint[])
ORDER BY place_id, priority, from_minute

-- name: shifts_of
-- Shifts near `now` of users who still work here; ends beyond any horizon are clipped.
SELECT s.place_id, s.user_id, s.post, s.stands_in_for,
       greatest(coalesce(lower(s.during), '-infinity'), %(now)s::timestamptz - interval '8 days')
           AS begins_at,
       least(coalesce(upper(s.during), 'infinity'), %(now)s::timestamptz + interval '8 days')
           AS ends_at
FROM shifts s
JOIN places p ON p.id = s.place_id
JOIN users u ON u.id = s.user_id AND u.disabled_at IS NULL AND u.role <> 'family'
LEFT JOIN places up ON up.id = u.place_id
WHERE s.place_id = ANY(%(places)s::bigint[])
  AND s.during && tstzrange(%(now)s::timestamptz - interval '7 days',
                            %(now)s::timestamptz + interval '7 days')
  AND starts_with(p.path, coalesce(up.path, '/'))
ORDER BY s.id

-- name: staff_of
SELECT id AS user_id, place_id, role FROM users
WHERE place_id = ANY(%(places)s::bigint[]) AND disabled_at IS NULL
  AND role IN ('nurse', 'supervisor')
ORDER BY id

-- name: family_of
SELECT f.resident_id, f.user_id FROM family_links f
JOIN users u ON u.id = f.user_id AND u.disabled_at IS NULL
WHERE f.resident_id = ANY(%(residents)s::bigint[]) AND 'alarms' = ANY(scopes_in_force(f.scopes, f.ends))
ORDER BY f.user_id

-- name: contacts_of
-- One that fails comes last: it is tried when there is no other.
SELECT id, channel, user_id, place_id, office FROM contacts
WHERE enabled AND (place_id = ANY(%(places)s::bigint[]) OR user_id = ANY(%(users)s::bigint[]))
ORDER BY failing_since IS NOT NULL, id

-- name: chain
SELECT p.id, p.path, EXISTS (
    SELECT 1 FROM places h WHERE starts_with(p.path, h.path) AND h.kind = 'home') AS at_home
FROM places p WHERE p.id = %(place_id)s AND starts_with(p.path, %(path)s::text)

-- name: list_shifts
SELECT s.id::text, s.place_id::text, s.user_id::text, s.post, lower(s.during) AS begins_at,
       upper(s.during) AS ends_at, s.stands_in_for::text, s.note
FROM shifts s JOIN places p ON p.id = s.place_id
WHERE starts_with(p.path, %(path)s::text) AND s.id > %(after)s
  AND (%(place_id)s::bigint IS NULL OR s.place_id = %(place_id)s::bigint)
  AND s.during && tstzrange(%(since)s::timestamptz, %(until)s::timestamptz)
ORDER BY s.id LIMIT %(limit)s

-- name: add_shift
-- Nobody is put on a post of a place that their own right does not reach, nor is a relative.
INSERT INTO shifts (place_id, user_id, post, during, stands_in_for, note)
SELECT p.id, u.id, %(post)s, tstzrange(%(begins_at)s::timestamptz, %(ends_at)s::timestamptz),
       %(stands_in_for)s::bigint, %(note)s
FROM places p
JOIN users u ON u.id = %(user_id)s AND u.disabled_at IS NULL
     AND u.role IN ('nurse', 'supervisor', 'admin')
LEFT JOIN places up ON up.id = u.place_id
WHERE p.id = %(place_id)s AND starts_with(p.path, %(path)s::text)
  AND starts_with(p.path, coalesce(up.path, '/'))
  -- Nor does anybody stand in for a stranger: that would tell whether there is such a one.
  AND (%(stands_in_for)s::bigint IS NULL OR EXISTS (
      SELECT FROM users s LEFT JOIN places sp ON sp.id = s.place_id
      WHERE s.id = %(stands_in_for)s::bigint AND s.role IN ('nurse', 'supervisor', 'admin')
        AND starts_with(p.path, coalesce(sp.path, '/'))))
RETURNING id::text, place_id::text, user_id::text, post, lower(during) AS begins_at,
          upper(during) AS ends_at, stands_in_for::text, note

-- name: place_of_shift
SELECT s.place_id FROM shifts s JOIN places p ON p.id = s.place_id
WHERE s.id = %(id)s AND starts_with(p.path, %(path)s::text)

-- name: drop_shift
DELETE FROM shifts s USING places p
WHERE s.id = %(id)s AND p.id = s.place_id AND starts_with(p.path, %(path)s::text)
RETURNING s.place_id

-- name: list_ladders
SELECT l.id::text, l.place_id::text, l.priority, l.from_minute, l.to_minute, l.lease_seconds,
       l.steps
FROM ladders l JOIN places p ON p.id = l.place_id
WHERE starts_with(p.path, %(path)s::text) AND l.id > %(after)s
  AND (%(place_id)s::bigint IS NULL OR l.place_id = %(place_id)s::bigint)
ORDER BY l.id LIMIT %(limit)s

-- name: put_ladder
INSERT INTO ladders (place_id, priority, from_minute, to_minute, lease_seconds, steps)
SELECT p.id, %(priority)s, %(from_minute)s, %(to_minute)s, %(lease_seconds)s, %(steps)s::jsonb
FROM places p WHERE p.id = %(place_id)s AND starts_with(p.path, %(path)s::text)
ON CONFLICT (place_id, priority, from_minute) DO UPDATE SET
    to_minute = excluded.to_minute, lease_seconds = excluded.lease_seconds,
    steps = excluded.steps
RETURNING id::text, place_id::text, priority, from_minute, to_minute, lease_seconds, steps

-- name: drop_ladder
DELETE FROM ladders l USING places p
WHERE l.id = %(id)s AND p.id = l.place_id AND starts_with(p.path, %(path)s::text)
RETURNING l.place_id
