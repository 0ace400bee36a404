-- name: create
INSERT INTO enrolments (code_hash, kind, name, place_id, resident_id, gateway_key, device_id,
                        created_by, expires_at)
VALUES (%(code_hash)s, %(kind)s, %(name)s, %(place_id)s, %(resident_id)s, %(gateway_key)s,
        %(device_id)s, %(created_by)s, %(expires_at)s)
RETURNING id

-- name: list
SELECT e.id, e.kind, e.name, e.place_id::text, e.resident_id::text, e.device_id,
       (SELECT g.id FROM devices g WHERE g.key = e.gateway_key) AS gateway_id,
       e.created_at, e.expires_at, e.withdrawn_at, e.used_at
FROM enrolments e LEFT JOIN places p ON p.id = e.place_id
WHERE starts_with(coalesce(p.path, '/'), %(path)s::text)
  AND (%(before)s::bigint IS NULL OR e.id < %(before)s::bigint)
ORDER BY e.id DESC LIMIT %(limit)s

-- name: get
SELECT e.id, e.kind, e.name, e.place_id::text, e.resident_id::text, e.device_id,
       (SELECT g.id FROM devices g WHERE g.key = e.gateway_key) AS gateway_id,
       e.created_at, e.expires_at, e.withdrawn_at, e.used_at
FROM enrolments e LEFT JOIN places p ON p.id = e.place_id
WHERE e.id = %(id)s AND starts_with(coalesce(p.path, '/'), %(path)s::text)

-- name: withdraw
UPDATE enrolments e SET withdrawn_at = now()
WHERE e.id = %(id)s AND e.used_at IS NULL AND e.withdrawn_at IS NULL
  AND (%(path)s::text = '/' OR EXISTS (
        SELECT 1 FROM places p WHERE p.id = e.place_id AND starts_with(p.path, %(path)s::text)))

-- name: redeem
SELECT redeem_enrolment(%(code_hash)s, %(device_id)s, %(fallback_id)s, %(salt)s, %(secret_hash)s)
       AS device_id
