-- name: begin
-- Not more than so many from one address at a time: who begins logins need not be anybody yet.
WITH swept AS (DELETE FROM outside_logins WHERE expires_at < now())
INSERT INTO outside_logins (state_hash, browser_hash, provider, nonce, verifier, next, session_id,
                            address, began_at, expires_at)
SELECT %(state_hash)s, %(browser_hash)s, %(provider)s, %(nonce)s, %(verifier)s, %(next)s,
       %(session_id)s, %(address)s, %(began_at)s::timestamptz,
       %(began_at)s::timestamptz + %(lifetime)s::interval
WHERE (SELECT count(*) FROM outside_logins
       WHERE address = %(address)s AND expires_at >= now()) < %(most)s

-- name: take
DELETE FROM outside_logins WHERE state_hash = %(state_hash)s
RETURNING browser_hash, provider, nonce, verifier, next, session_id, began_at,
          expires_at > %(now)s::timestamptz AS valid

-- name: find
UPDATE outside_identities SET used_at = now()
WHERE issuer = %(issuer)s AND subject = %(subject)s RETURNING id, user_id

-- name: list
SELECT i.id::text, i.provider, i.issuer, i.subject, i.linked_by::text, i.linked_at, i.used_at
FROM outside_identities i WHERE i.user_id = %(user_id)s ORDER BY i.id

-- name: link
INSERT INTO outside_identities (user_id, provider, issuer, subject, linked_by)
VALUES (%(user_id)s, %(provider)s, %(issuer)s, %(subject)s, %(linked_by)s)
RETURNING id::text, provider, issuer, subject, linked_by::text, linked_at, used_at

-- name: unlink
-- Who came in by it is out.
WITH gone AS (
    DELETE FROM outside_identities WHERE id = %(id)s AND user_id = %(user_id)s RETURNING user_id),
ended AS (DELETE FROM sessions WHERE user_id IN (SELECT user_id FROM gone))
SELECT count(*) AS gone FROM gone

-- name: shown_at
-- When the user of a session last proved who it is; never later than the session says already.
UPDATE sessions SET confirmed_at = least(confirmed_at, %(shown_at)s::timestamptz)
WHERE token_hash = %(token_hash)s

-- name: session_hash
SELECT token_hash FROM sessions
WHERE id = %(session_id)s AND user_id = %(user_id)s AND expires_at > now()
