-- name: list
SELECT id::text, parent_id::text, kind, name, phone FROM places
WHERE starts_with(path, %(path)s::text) AND id > %(after)s
ORDER BY id LIMIT %(limit)s

-- name: get
SELECT id::text, parent_id::text, kind, name, phone FROM places
WHERE starts_with(path, %(path)s::text) AND id = %(id)s

-- name: create
INSERT INTO places (parent_id, kind, name, phone)
SELECT %(parent_id)s::bigint, %(kind)s, %(name)s, %(phone)s::text
WHERE %(parent_id)s::bigint IS NULL AND %(path)s::text = '/'
   OR EXISTS (SELECT 1 FROM places
              WHERE id = %(parent_id)s::bigint AND starts_with(path, %(path)s::text))
RETURNING id::text, parent_id::text, kind, name, phone

-- name: change
UPDATE places SET
    name = coalesce(%(name)s::text, name),
    phone = CASE WHEN 'phone' = ANY(%(given)s::text[]) THEN %(phone)s::text ELSE phone END
WHERE id = %(id)s AND starts_with(path, %(path)s::text)
RETURNING id::text, parent_id::text, kind, name, phone
