-- name: list
-- Own ones, and for who leads a place those of its offices and of its people.
SELECT c.id::text, c.user_id::text, u.username, c.place_id::text, c.office, c.channel, c.address,
       c.secret <> '' AS has_secret, c.enabled, c.failures, c.failing_since, c.last_ok_at,
       c.last_error, c.created_at
FROM contacts c
LEFT JOIN users u ON u.id = c.user_id
LEFT JOIN places p ON p.id = coalesce(c.place_id, u.place_id)
WHERE (c.user_id = %(self)s OR starts_with(coalesce(p.path, '/'), %(path)s::text))
  AND (%(user_id)s::bigint IS NULL OR c.user_id = %(user_id)s::bigint)
  AND (%(place_id)s::bigint IS NULL
       OR starts_with(p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
  AND c.id > %(after)s
ORDER BY c.id LIMIT %(limit)s

-- name: get
SELECT c.id::text, c.user_id::text, u.username, c.place_id::text, c.office, c.channel, c.address,
       c.secret <> '' AS has_secret, c.enabled, c.failures, c.failing_since, c.last_ok_at,
       c.last_error, c.created_at
FROM contacts c
LEFT JOIN users u ON u.id = c.user_id
LEFT JOIN places p ON p.id = coalesce(c.place_id, u.place_id)
WHERE c.id = %(id)s
  AND (c.user_id = %(self)s OR starts_with(coalesce(p.path, '/'), %(path)s::text))

-- name: secret
SELECT secret FROM contacts WHERE id = %(id)s

-- name: create
INSERT INTO contacts (user_id, place_id, office, channel, address, secret, enabled)
SELECT %(user_id)s::bigint, %(place_id)s::bigint, %(office)s::text, %(channel)s::text,
       %(address)s::text, %(secret)s::text, %(enabled)s::boolean
WHERE %(user_id)s::bigint = %(self)s
   OR EXISTS (SELECT 1 FROM users u LEFT JOIN places p ON p.id = u.place_id
              WHERE u.id = %(user_id)s::bigint AND starts_with(coalesce(p.path, '/'), %(path)s::text))
   OR EXISTS (SELECT 1 FROM places p
              WHERE p.id = %(place_id)s::bigint AND starts_with(p.path, %(path)s::text))
RETURNING id

-- name: change
UPDATE contacts SET
    address = coalesce(%(address)s::text, address),
    secret = coalesce(%(secret)s::text, secret),
    enabled = coalesce(%(enabled)s::boolean, enabled),
    -- What failed was the way as it was.
    failures = CASE WHEN %(anew)s::boolean THEN 0 ELSE failures END,
    failing_since = CASE WHEN NOT %(anew)s::boolean THEN failing_since END,
    last_error = CASE WHEN NOT %(anew)s::boolean THEN last_error END
WHERE id = %(id)s

-- name: delete
DELETE FROM contacts WHERE id = %(id)s

-- name: worked
-- Returns whose alarm may end: the place and channel of a contact that had failed.
WITH mended AS (
    UPDATE contacts c SET
        failures = 0, failing_since = NULL, alarmed_at = NULL, last_error = NULL,
        last_ok_at = clock_timestamp()
    FROM (SELECT id, alarmed_at FROM contacts WHERE id = %(id)s FOR UPDATE) AS was
    WHERE c.id = was.id
    RETURNING c.user_id, c.place_id, c.channel, was.alarmed_at IS NOT NULL AS failed
)
SELECT coalesce(m.place_id, u.place_id) AS place_id, m.channel
FROM mended m LEFT JOIN users u ON u.id = m.user_id
WHERE m.failed

-- name: broke
WITH was AS (
    SELECT c.id, c.failures, c.failing_since,
           coalesce(c.place_id, u.place_id) AS place_id
    FROM contacts c LEFT JOIN users u ON u.id = c.user_id
    WHERE c.id = %(id)s FOR UPDATE OF c
)
UPDATE contacts c SET
    failures = was.failures + 1,
    failing_since = coalesce(was.failing_since, clock_timestamp()),
    last_error = %(error)s::text
FROM was WHERE c.id = was.id
RETURNING c.id::text, c.channel, was.place_id, c.failing_since,
    -- What the place's alarm about this channel names already.
    ARRAY(SELECT o.id::text FROM contacts o LEFT JOIN users v ON v.id = o.user_id
          WHERE o.alarmed_at IS NOT NULL AND o.enabled AND o.channel = c.channel AND o.id <> c.id
            AND coalesce(o.place_id, v.place_id) = was.place_id ORDER BY o.id) AS dead,
    (c.failures > %(most_failures)s
     OR c.failing_since < clock_timestamp() - %(most_seconds)s * interval '1 second')
    AND c.alarmed_at IS NULL AS dies

-- name: alarm
WITH noted AS (UPDATE contacts SET alarmed_at = clock_timestamp() WHERE id = %(id)s::bigint)
SELECT raise_alarm(%(subject)s, NULL, %(place_id)s::bigint, NULL, 'device_fault', 'technical',
                   2::smallint, %(since)s::timestamptz, false, 1,
                   %(detail)s::jsonb, 'delivery')

-- name: recover
SELECT recover_alarm(%(subject)s, 'device_fault', 'delivery')
WHERE NOT EXISTS (
    SELECT 1 FROM contacts c LEFT JOIN users u ON u.id = c.user_id
    WHERE c.alarmed_at IS NOT NULL AND c.enabled AND c.channel = %(channel)s
      AND coalesce(c.place_id, u.place_id) = %(place_id)s::bigint)
