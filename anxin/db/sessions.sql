-- name: create
WITH swept AS (DELETE FROM sessions WHERE expires_at < now())
INSERT INTO sessions (token_hash, user_id, expires_at, idle, ends_at, address, device, method, limited)
VALUES (%(token_hash)s, %(user_id)s, least(now() + %(idle)s::interval, %(ends_at)s), %(idle)s,
        %(ends_at)s, %(address)s, %(device)s, %(method)s,
        session_lacks(%(user_id)s, %(method)s, %(needing)s::text[]))

-- name: authorities
-- Staff sees the tree under its place, an admin without place everything, a family its relatives.
-- To be asked for is to be used: noted once a minute. Requests of one session do not wait for each
-- other to note it.
WITH asked AS MATERIALIZED (
    SELECT id FROM sessions WHERE token_hash = ANY(%(hashes)s::bytea[])
    UNION ALL SELECT unnest(%(ids)s::bigint[])
), used AS (
    UPDATE sessions SET used_at = now(),
        expires_at = coalesce(least(now() + idle, ends_at), expires_at)
    WHERE id IN (
        SELECT id FROM sessions
        WHERE id IN (SELECT id FROM asked) AND expires_at > now()
          AND used_at < now() - interval '1 minute'
        FOR UPDATE SKIP LOCKED)
)
SELECT s.id AS session_id, s.confirmed_at, s.token_hash, s.expires_at, s.method, s.limited,
    u.id AS user_id, u.username, u.role, u.place_id,
    EXISTS (SELECT FROM second_factors f
            WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL) AS second_factor,
    CASE WHEN u.role = 'family' THEN NULL
         WHEN u.place_id IS NULL AND u.role = 'admin' THEN '/'
         ELSE p.path END AS path,
    coalesce((SELECT jsonb_object_agg(f.resident_id, scopes_in_force(f.scopes, f.ends))
              FROM family_links f WHERE f.user_id = u.id AND u.role = 'family'), '{}') AS links,
    (SELECT min(until_at) FROM family_links f CROSS JOIN unnest(f.ends) AS until_at
     WHERE f.user_id = u.id AND u.role = 'family' AND until_at > now()) AS links_until,
    ARRAY(SELECT right_ FROM role_rights r WHERE r.role = u.role) AS rights
FROM sessions s
JOIN users u ON u.id = s.user_id
LEFT JOIN places p ON p.id = u.place_id
WHERE s.id IN (SELECT id FROM asked) AND s.expires_at > now() AND u.disabled_at IS NULL

-- name: end
-- The word that a screen goes off duty may not get through before its session ends. Where the same
-- user has another screen on duty, that one says so again within seconds.
WITH ended AS (DELETE FROM sessions WHERE token_hash = %(token_hash)s RETURNING user_id)
UPDATE stations SET on_duty = false WHERE user_id IN (SELECT user_id FROM ended)

-- name: list
-- The database shows a session those of its own user and of whom it manages.
SELECT id::text, created_at, used_at, expires_at, address, device, id = %(current)s AS current
FROM sessions WHERE user_id = %(user_id)s AND expires_at > now() ORDER BY used_at DESC, id DESC

-- name: end_own
-- One of them, or all but the one that asks.
WITH ended AS (
    DELETE FROM sessions
    WHERE user_id = %(user_id)s
      AND CASE WHEN %(id)s::bigint IS NULL THEN id <> %(current)s ELSE id = %(id)s::bigint END
    RETURNING user_id),
off AS (UPDATE stations SET on_duty = false WHERE user_id IN (SELECT user_id FROM ended))
SELECT count(*) AS ended FROM ended

-- name: renew
-- Whoever has shown again who it is goes on with another token.
UPDATE sessions SET token_hash = %(new)s, confirmed_at = now(),
    limited = session_lacks(user_id, method, %(needing)s::text[])
WHERE token_hash = %(token_hash)s AND expires_at > now() RETURNING expires_at, ends_at

-- name: limit
UPDATE sessions SET limited = session_lacks(user_id, method, %(needing)s::text[])
WHERE user_id = %(user_id)s

-- name: create_ticket
WITH swept AS (DELETE FROM tickets WHERE expires_at < now())
INSERT INTO tickets (token_hash, session_hash, expires_at)
VALUES (%(token_hash)s, %(session_hash)s, now() + %(lifetime)s::interval)

-- name: take_ticket
DELETE FROM tickets WHERE token_hash = %(token_hash)s RETURNING session_hash, expires_at > now() AS valid
