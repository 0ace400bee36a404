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

-- name: set_password
-- Who sets a password may not read the old one.
UPDATE users SET password_hash = %(password_hash)s, password_expires_at = NULL WHERE id = %(id)s

-- name: set_one_time_password
UPDATE users SET password_hash = %(password_hash)s, password_expires_at = %(expires_at)s
WHERE id = %(id)s

-- name: end_factor
DELETE FROM second_factors WHERE user_id = %(id)s

-- name: set_disabled
UPDATE users SET disabled_at = CASE WHEN %(disabled)s THEN coalesce(disabled_at, now()) END
WHERE id = %(id)s

-- name: rights
SELECT DISTINCT right_ FROM role_rights

-- name: end_sessions
DELETE FROM sessions WHERE user_id = %(id)s
