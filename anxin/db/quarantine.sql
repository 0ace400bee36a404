-- name: list
SELECT q.id::text, q.received_at, q.device_id, q.kind, q.reason, q.size,
       substr(q.payload, 1, %(most)s) AS payload
FROM quarantine q
LEFT JOIN devices v ON v.id = q.device_id
LEFT JOIN places dp ON dp.id = v.place_id
LEFT JOIN assignments s ON s.device_key = v.key AND s.during @> now()
LEFT JOIN residents r ON r.id = s.resident_id
LEFT JOIN places rp ON rp.id = r.place_id
WHERE (%(path)s::text = '/' OR starts_with(dp.path, %(path)s::text)
       OR starts_with(rp.path, %(path)s::text))
  AND (%(device_id)s::text IS NULL OR q.device_id = %(device_id)s::text)
  AND (%(id)s::bigint IS NULL OR q.id = %(id)s::bigint)
  AND (%(before)s::bigint IS NULL OR q.id < %(before)s::bigint)
ORDER BY q.id DESC LIMIT %(limit)s
