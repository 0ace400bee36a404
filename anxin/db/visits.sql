-- name: list
SELECT v.id::text, v.resident_id::text, v.kind, v.at, v.minutes, v.note,
       v.recorded_at
FROM visits v
WHERE v.resident_id = %(resident_id)s
  AND (%(at)s::timestamptz IS NULL OR (v.at, v.id) < (%(at)s::timestamptz, %(before)s::bigint))
ORDER BY v.at DESC, v.id DESC LIMIT %(limit)s

-- name: record
INSERT INTO visits (resident_id, kind, at, minutes, note, recorded_by)
VALUES (%(resident_id)s, %(kind)s, %(at)s, %(minutes)s, %(note)s, %(by)s)
RETURNING id::text, resident_id::text, kind, at, minutes, note, recorded_at

-- name: remove
DELETE FROM visits WHERE resident_id = %(resident_id)s AND id = %(id)s
