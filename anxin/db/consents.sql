-- name: list
SELECT c.id::text, c.purpose, c.user_id::text, u.username, c.scopes, c.given_by, c.relation, c.how,
       c.given_at, c.until_at, c.withdrawn_at, c.recorded_at,
       (SELECT w.username FROM users w WHERE w.id = c.recorded_by) AS recorded_by,
       (SELECT w.username FROM users w WHERE w.id = c.withdrawn_by) AS withdrawn_by,
       c.withdrawn_at IS NULL AND coalesce(c.until_at > now(), true) AS in_force
FROM consents c
JOIN residents r ON r.id = c.resident_id JOIN places p ON p.id = r.place_id
LEFT JOIN users u ON u.id = c.user_id
WHERE c.resident_id = %(resident_id)s AND starts_with(p.path, %(path)s::text)
  AND (%(id)s::bigint IS NULL OR c.id = %(id)s::bigint)
  AND (%(before)s::bigint IS NULL OR c.id < %(before)s::bigint)
ORDER BY c.id DESC LIMIT %(limit)s

-- name: record
INSERT INTO consents (resident_id, purpose, user_id, scopes, given_by, relation, how, given_at,
                      until_at, recorded_by)
VALUES (%(resident_id)s, %(purpose)s, %(user_id)s, %(scopes)s, %(given_by)s, %(relation)s, %(how)s,
        coalesce(%(given_at)s::timestamptz, now()), %(until_at)s::timestamptz, %(by)s)
RETURNING id

-- name: withdraw
UPDATE consents SET withdrawn_at = now(), withdrawn_by = %(by)s
WHERE resident_id = %(resident_id)s AND id = %(id)s AND withdrawn_at IS NULL
  AND coalesce(until_at > now(), true)

-- name: withdraw_family
UPDATE consents SET withdrawn_at = now(), withdrawn_by = %(by)s
WHERE resident_id = %(resident_id)s AND user_id = %(user_id)s AND purpose = 'family'
  AND withdrawn_at IS NULL AND coalesce(until_at > now(), true)

-- name: family
SELECT f.user_id::text, u.username, scopes_in_force(f.scopes, f.ends) AS scopes
FROM family_links f JOIN users u ON u.id = f.user_id
WHERE f.resident_id = %(resident_id)s AND scopes_in_force(f.scopes, f.ends) <> '{}'
  AND (%(user_id)s::bigint IS NULL OR f.user_id = %(user_id)s::bigint)
ORDER BY f.user_id
