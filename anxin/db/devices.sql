-- name: list
SELECT v.key, v.id, v.kind, v.name, v.place_id::text, s.resident_id::text,
       lower(s.during) AS assigned_since, t.online, t.heard_at, t.battery, t.rssi, t.firmware,
       t.connected_at, t.network, t.tls, t.certificate_until, v.old_until AS overlap_until,
       (SELECT count(*) FROM (SELECT 1 FROM quarantine q WHERE q.device_id = v.id LIMIT 100) AS few)
           AS quarantined,
       (SELECT g.id FROM devices g WHERE g.key = v.gateway_key) AS gateway_id,
       coalesce((SELECT m.state FROM device_monitoring m WHERE m.device_key = v.key),
                'undeployed') AS monitoring,
       v.revoked_at, v.created_at
FROM devices v
-- One by one until the page is full: joined as a whole, those that are not shown are judged as well.
LEFT JOIN LATERAL (
    SELECT n.resident_id, n.during, p.path
    FROM assignments n
    LEFT JOIN residents r ON r.id = n.resident_id
    LEFT JOIN places p ON p.id = r.place_id
    WHERE n.device_key = v.key AND n.during @> now() LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (SELECT p.path FROM places p WHERE p.id = v.place_id LIMIT 1) AS dp ON true
LEFT JOIN LATERAL (SELECT n.* FROM device_states n WHERE n.device_key = v.key LIMIT 1) AS t ON true
WHERE (%(path)s::text = '/' OR starts_with(dp.path, %(path)s::text)
       OR starts_with(s.path, %(path)s::text))
  AND (%(revoked)s OR v.revoked_at IS NULL)
  AND (%(gateway_id)s::text IS NULL
       OR v.gateway_key = (SELECT g.key FROM devices g WHERE g.id = %(gateway_id)s::text))
  AND (%(resident_id)s::bigint IS NULL OR s.resident_id = %(resident_id)s::bigint)
  AND (%(place_id)s::bigint IS NULL OR starts_with(
       coalesce(s.path, dp.path), (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
  AND v.key > %(after)s
ORDER BY v.key LIMIT %(limit)s

-- name: get
SELECT v.key, v.id, v.kind, v.name, v.place_id::text, s.resident_id::text,
       lower(s.during) AS assigned_since, t.online, t.heard_at, t.battery, t.rssi, t.firmware,
       t.connected_at, t.network, t.tls, t.certificate_until, v.old_until AS overlap_until,
       (SELECT count(*) FROM (SELECT 1 FROM quarantine q WHERE q.device_id = v.id LIMIT 100) AS few)
           AS quarantined,
       (SELECT g.id FROM devices g WHERE g.key = v.gateway_key) AS gateway_id,
       coalesce((SELECT m.state FROM device_monitoring m WHERE m.device_key = v.key),
                'undeployed') AS monitoring,
       v.revoked_at, v.created_at
FROM devices v
LEFT JOIN places dp ON dp.id = v.place_id
LEFT JOIN assignments s ON s.device_key = v.key AND s.during @> now()
LEFT JOIN residents r ON r.id = s.resident_id
LEFT JOIN places rp ON rp.id = r.place_id
LEFT JOIN device_states t ON t.device_key = v.key
WHERE v.id = %(id)s
  AND (%(path)s::text = '/' OR starts_with(dp.path, %(path)s::text)
       OR starts_with(rp.path, %(path)s::text))

-- name: enrol
INSERT INTO devices (id, kind, name, place_id, salt, secret_hash)
VALUES (%(id)s, %(kind)s, %(name)s, %(place_id)s, %(salt)s, %(secret_hash)s)
ON CONFLICT (id) DO NOTHING

-- name: enrol_anew
-- A revoked id, by whoever may see it; its history stays.
UPDATE devices v SET
    kind = %(kind)s, name = %(name)s, place_id = %(place_id)s,
    salt = %(salt)s, secret_hash = %(secret_hash)s, old_until = NULL, revoked_at = NULL
WHERE v.id = %(id)s AND v.revoked_at IS NOT NULL
  AND (%(path)s::text = '/' OR EXISTS (
        SELECT 1 FROM places WHERE id = v.place_id AND starts_with(path, %(path)s::text)))

-- name: lock
SELECT key FROM devices WHERE id = %(id)s FOR UPDATE

-- name: change
UPDATE devices SET
    kind = coalesce(%(kind)s::text, kind),
    name = coalesce(%(name)s::text, name),
    place_id = CASE WHEN 'place_id' = ANY(%(given)s::text[]) THEN %(place_id)s::bigint ELSE place_id END,
    gateway_key = CASE WHEN 'gateway_id' = ANY(%(given)s::text[])
                       THEN %(gateway_key)s::integer ELSE gateway_key END
WHERE key = %(key)s

-- name: renew
UPDATE devices SET salt = %(salt)s, secret_hash = %(secret_hash)s,
    old_until = CASE WHEN %(overlap_seconds)s::integer > 0
                     THEN now() + %(overlap_seconds)s::integer * interval '1 second' END
WHERE key = %(key)s AND revoked_at IS NULL

-- name: revoke
UPDATE devices SET revoked_at = now() WHERE key = %(key)s AND revoked_at IS NULL
