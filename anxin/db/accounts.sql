-- name: lock
-- Attempts at one account, or from one address, are counted one after the other.
SELECT pg_advisory_xact_lock(hashtextextended(%(of)s, 15))

-- name: is_known
SELECT EXISTS (SELECT FROM known_devices d JOIN users u ON u.id = d.user_id
               WHERE d.mark = %(mark)s AND lower(u.username) = lower(%(username)s)
                 AND d.used_at > %(now)s - %(lifetime)s::interval) AS known

-- name: last_spared
-- The failure that must be an hour old before the next attempt: the oldest of as many as are free.
SELECT at FROM login_attempts
WHERE username = lower(%(username)s) AND mark IS NOT DISTINCT FROM %(mark)s::bytea
  AND at > %(now)s - %(window)s::interval
ORDER BY at DESC OFFSET %(free)s - 1 LIMIT 1

-- name: last_spared_from
SELECT at FROM login_attempts
WHERE address = %(address)s AND mark IS NULL AND at > %(now)s - %(window)s::interval
ORDER BY at DESC OFFSET %(free)s - 1 LIMIT 1

-- name: note
WITH swept AS (DELETE FROM login_attempts WHERE at < %(now)s - %(window)s::interval)
INSERT INTO login_attempts (username, address, at, mark)
VALUES (lower(%(username)s), %(address)s, %(now)s, %(mark)s) RETURNING id

-- name: forgive
-- Who was right did not fail; on a device of one's own, former slips are forgotten as well.
DELETE FROM login_attempts
WHERE id = %(id)s OR username = lower(%(username)s) AND mark = %(mark)s::bytea

-- name: move_device
-- The mark of a browser changes with each login, for everybody who uses it: one that somebody else
-- has put there stays unknown.
WITH gone AS (DELETE FROM known_devices WHERE user_id = %(user_id)s AND mark = %(old)s)
UPDATE known_devices SET mark = %(new)s WHERE mark = %(old)s AND user_id <> %(user_id)s

-- name: know_device
-- Of each user the devices used last are kept.
WITH gone AS (DELETE FROM known_devices WHERE user_id = %(user_id)s AND mark IN (
    SELECT mark FROM known_devices WHERE user_id = %(user_id)s
    ORDER BY used_at DESC OFFSET %(most)s - 1))
INSERT INTO known_devices (user_id, mark, used_at) VALUES (%(user_id)s, %(new)s, %(now)s)

-- name: credentials
SELECT u.id, u.password_hash, u.password_expires_at, f.confirmed_at IS NOT NULL AS second_factor
FROM users u LEFT JOIN second_factors f ON f.user_id = u.id
WHERE lower(u.username) = lower(%(username)s) AND u.disabled_at IS NULL

-- name: strengthen
UPDATE users SET password_hash = %(new)s WHERE id = %(user_id)s AND password_hash = %(old)s

-- name: set_password
UPDATE users SET password_hash = %(password_hash)s, password_expires_at = NULL WHERE id = %(user_id)s

-- name: begin_factor
-- One that was never confirmed makes way for another.
INSERT INTO second_factors (user_id, master_id, secret) VALUES (%(user_id)s, %(master_id)s, %(secret)s)
ON CONFLICT (user_id) DO UPDATE SET master_id = excluded.master_id, secret = excluded.secret,
    created_at = now()
WHERE second_factors.confirmed_at IS NULL

-- name: factor
SELECT master_id, secret, last_step, confirmed_at IS NOT NULL AS confirmed
FROM second_factors WHERE user_id = %(user_id)s

-- name: take_step
-- Of two who show the same code one is first.
UPDATE second_factors SET last_step = %(step)s, confirmed_at = coalesce(confirmed_at, now())
WHERE user_id = %(user_id)s AND last_step < %(step)s

-- name: keep_codes
WITH before AS (DELETE FROM recovery_codes WHERE user_id = %(user_id)s)
INSERT INTO recovery_codes (user_id, code_hash)
SELECT %(user_id)s, unnest(%(hashes)s::bytea[])

-- name: take_code
UPDATE recovery_codes SET used_at = now()
WHERE user_id = %(user_id)s AND code_hash = %(code_hash)s AND used_at IS NULL

-- name: codes_left
SELECT count(*)::integer AS left FROM recovery_codes WHERE user_id = %(user_id)s AND used_at IS NULL

-- name: end_factor
DELETE FROM second_factors WHERE user_id = %(user_id)s

-- name: uses
SELECT master_id, count(*)::integer AS people FROM second_factors GROUP BY 1 ORDER BY 1

-- name: stale
SELECT user_id FROM second_factors WHERE master_id <> %(master_id)s AND user_id > %(after)s
ORDER BY user_id LIMIT %(limit)s

-- name: hold
SELECT user_id, master_id, secret FROM second_factors WHERE user_id = %(user_id)s FOR UPDATE

-- name: reseal
UPDATE second_factors SET master_id = %(master_id)s, secret = %(secret)s WHERE user_id = %(user_id)s
