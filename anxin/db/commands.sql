-- name: create
INSERT INTO commands (device_key, name, args, created_by)
VALUES (%(key)s, %(name)s, %(args)s::jsonb, %(user_id)s)
RETURNING id::text, name, args, created_at, delivered_at, ok, result, finished_at

-- name: list
SELECT c.id::text, c.name, c.args, c.created_at, c.delivered_at, c.ok, c.result, c.finished_at
FROM commands c JOIN devices v ON v.key = c.device_key
WHERE v.id = %(device_id)s AND (%(before)s::bigint IS NULL OR c.id < %(before)s::bigint)
ORDER BY c.id DESC LIMIT %(limit)s
