-- name: list
SELECT u.id::text, u.username, u.role, u.place_id::text, u.disabled_at
FROM users u LEFT JOIN places p ON p.id = u.place_id
WHERE starts_with(coalesce(p.path, '/'), %(path)s::text)
  AND u.role = ANY(%(roles)s::text[]) AND u.id > %(after)s
ORDER BY u.id LIMIT %(limit)s

-- name: get
SELECT u.id::text, u.username, u.role, u.place_id::text, u.disabled_at
FROM users u LEFT JOIN places p ON p.id = u.place_id
WHERE u.id = %(id)s AND starts_with(coalesce(p.path, '/'), %(path)s::text)
  AND u.role = ANY(%(roles)s::text[])

-- name: create
INSERT INTO users (username, password_hash, role, place_id)
SELECT %(username)s, %(password_hash)s, %(role)s, %(place_id)s::bigint
WHERE %(place_id)s::bigint IS NULL AND %(path)s::text = '/'
   OR EXISTS (SELECT 1 FROM places
              WHERE id = %(place_id)s::bigint AND starts_with(path, %(path)s::text))
RETURNING id::text, username, role, place_id::text, disabled_at

-- name: ensure
INSERT INTO users (username, password_hash, role, place_id)
VALUES (%(username)s, %(password_hash)s, %(role)s, %(place_id)s)
ON CONFLICT (lower(username)) DO NOTHING

-- name: exists
SELECT 1 FROM users WHERE lower(username) = lower(%(username)s)

-- name: change
UPDATE users u SET
    password_hash = coalesce(%(password_hash)s::text, u.password_hash),
    disabled_at = CASE %(disabled)s::boolean
        WHEN true THEN coalesce(u.disabled_at, now()) WHEN false THEN NULL ELSE u.disabled_at END
WHERE u.id = %(id)s
RETURNING id::text, username, role, place_id::text, disabled_at

-- name: end_sessions
DELETE FROM sessions WHERE user_id = %(id)s

-- name: credentials
SELECT id, password_hash FROM users WHERE lower(username) = lower(%(username)s) AND disabled_at IS NULL
