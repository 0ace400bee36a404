-- name: request
INSERT INTO erasures (resident_id, place_id, requested_by)
SELECT r.id, r.place_id, %(by)s
FROM residents r JOIN places p ON p.id = r.place_id
WHERE r.id = %(resident_id)s AND starts_with(p.path, %(path)s::text)
RETURNING id

-- name: list
SELECT e.id::text, e.resident_id::text, e.requested_at, e.approved_at, e.refused_at, e.began_at,
       e.finished_at, e.swept,
       (SELECT u.username FROM users u WHERE u.id = e.requested_by) AS requested_by,
       (SELECT u.username FROM users u WHERE u.id = e.approved_by) AS approved_by
FROM erasures e LEFT JOIN places p ON p.id = e.place_id
WHERE starts_with(coalesce(p.path, '/'), %(path)s::text)
  AND (%(id)s::bigint IS NULL OR e.id = %(id)s::bigint)
  AND (%(before)s::bigint IS NULL OR e.id < %(before)s::bigint)
ORDER BY e.id DESC LIMIT %(limit)s

-- name: approve
UPDATE erasures SET approved_at = now(), approved_by = %(by)s
WHERE id = %(id)s AND approved_at IS NULL AND refused_at IS NULL
  AND requested_by IS DISTINCT FROM %(by)s

-- name: refuse
UPDATE erasures SET refused_at = now() WHERE id = %(id)s AND approved_at IS NULL AND refused_at IS NULL

-- name: decide
-- The operator of the machine decides alone, and stands for it.
INSERT INTO erasures (resident_id, place_id, approved_at)
SELECT id, place_id, now() FROM residents WHERE id = %(resident_id)s
ON CONFLICT (resident_id) WHERE refused_at IS NULL
    DO UPDATE SET approved_at = coalesce(erasures.approved_at, now())
RETURNING id

-- name: due
-- Services forget within seconds who a device belonged to; only then the person goes.
SELECT id, CASE WHEN began_at IS NULL THEN 'begin' WHEN gone_at IS NULL THEN 'person' ELSE 'slice' END
    AS step
FROM erasures
WHERE approved_at IS NOT NULL AND finished_at IS NULL
  AND (began_at IS NULL OR gone_at IS NOT NULL
       OR began_at < clock_timestamp() - %(pause)s * interval '1 second')
  AND (%(id)s::bigint IS NULL OR id = %(id)s::bigint)
ORDER BY id

-- name: lately
SELECT id FROM erasures WHERE finished_at > now() - %(days)s * interval '1 day' ORDER BY id

-- name: finished
SELECT finished_at IS NOT NULL AS finished, swept FROM erasures WHERE id = %(id)s

-- name: begin
SELECT begin_erasure(%(id)s) AS done

-- name: person
SELECT erase_person(%(id)s) AS done

-- name: slice
SELECT erase_slice(%(id)s) AS done

-- name: unfinished
SELECT id FROM erasures
WHERE resident_id = %(resident_id)s AND approved_at IS NOT NULL AND finished_at IS NULL
