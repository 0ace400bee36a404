-- name: station
SELECT name, phone FROM station_of(%(id)s)

-- name: answers
SELECT at, change, role FROM answers_to(%(id)s)

-- name: consents
SELECT c.resident_id::text, c.scopes, c.given_by, c.relation, c.how, c.given_at, c.until_at,
       c.withdrawn_at, c.withdrawn_at IS NULL AND coalesce(c.until_at > now(), true) AS in_force
FROM consents c WHERE c.user_id = %(user_id)s
ORDER BY c.id DESC LIMIT 200

-- name: quiet
SELECT from_, until_, only_urgent FROM quiet_hours WHERE user_id = %(user_id)s

-- name: choose_quiet
INSERT INTO quiet_hours (user_id, from_, until_, only_urgent)
VALUES (%(user_id)s, %(from)s, %(until)s, %(only_urgent)s)
ON CONFLICT (user_id) DO UPDATE SET
    from_ = excluded.from_, until_ = excluded.until_, only_urgent = excluded.only_urgent,
    changed_at = now()
