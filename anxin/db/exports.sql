-- name: residents
SELECT r.id, r.name, r.sex, r.born, r.care_level, r.fall_risk, r.wander_risk, r.note,
       (SELECT string_agg(q.name, '/' ORDER BY length(q.path)) FROM places q
        WHERE q.id = ANY(string_to_array(trim(BOTH '/' FROM p.path), '/')::bigint[])
          AND starts_with(q.path, %(path)s::text)) AS place
FROM residents r JOIN places p ON p.id = r.place_id
WHERE starts_with(p.path, %(path)s::text) AND r.id > %(after)s
  AND (%(place_id)s::bigint IS NULL
       OR starts_with(p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
ORDER BY r.id LIMIT %(limit)s

-- name: devices
SELECT v.key, v.id, v.kind, v.name, r.name AS resident, r.id AS resident_id, t.battery, t.rssi,
       t.firmware, t.heard_at,
       (SELECT string_agg(q.name, '/' ORDER BY length(q.path)) FROM places q
        WHERE q.id = ANY(string_to_array(trim(BOTH '/' FROM dp.path), '/')::bigint[])
          AND starts_with(q.path, %(path)s::text)) AS place
FROM devices v
LEFT JOIN places dp ON dp.id = v.place_id
LEFT JOIN assignments s ON s.device_key = v.key AND s.during @> now()
LEFT JOIN residents r ON r.id = s.resident_id
LEFT JOIN places rp ON rp.id = r.place_id
LEFT JOIN device_states t ON t.device_key = v.key
WHERE v.revoked_at IS NULL AND v.key > %(after)s
  AND (%(path)s::text = '/' OR starts_with(dp.path, %(path)s::text)
       OR starts_with(rp.path, %(path)s::text))
  AND (%(place_id)s::bigint IS NULL OR starts_with(
       coalesce(rp.path, dp.path), (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
ORDER BY v.key LIMIT %(limit)s
