-- name: list
SELECT t.id::text, t.place_id::text, t.name, t.limits
FROM limit_templates t LEFT JOIN places p ON p.id = t.place_id
WHERE (t.place_id IS NULL OR starts_with(p.path, %(path)s::text) OR starts_with(%(path)s::text, p.path))
  AND t.id > %(after)s
ORDER BY t.id LIMIT %(limit)s

-- name: get
SELECT 1 FROM limit_templates t LEFT JOIN places p ON p.id = t.place_id
WHERE t.id = %(id)s AND (t.place_id IS NULL OR starts_with(p.path, %(path)s::text)
                         OR starts_with(%(path)s::text, p.path))

-- name: create
INSERT INTO limit_templates (place_id, name, limits)
VALUES (%(place_id)s, %(name)s, %(limits)s)
RETURNING id::text, place_id::text, name, limits

-- name: drop
DELETE FROM limit_templates t
WHERE t.id = %(id)s
  AND (%(path)s::text = '/' OR EXISTS (
        SELECT FROM places p WHERE p.id = t.place_id AND starts_with(p.path, %(path)s::text)))

-- name: apply
-- Rows that have these limits already are named, and not written.
WITH chosen AS MATERIALIZED (
    SELECT r.id, t.limits, NOT r.limits @> t.limits AS differs
    FROM limit_templates t, residents r JOIN places p ON p.id = r.place_id
    WHERE t.id = %(id)s AND starts_with(p.path, %(path)s::text)
      AND (%(ids)s::bigint[] IS NULL OR r.id = ANY(%(ids)s::bigint[]))
      AND (%(place_id)s::bigint IS NULL OR starts_with(
           p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
), written AS (
    UPDATE residents r SET limits = r.limits || c.limits
    FROM chosen c WHERE r.id = c.id AND c.differs RETURNING r.id
)
SELECT c.id, (w.id IS NOT NULL)::integer AS changed
FROM chosen c LEFT JOIN written w ON w.id = c.id
