-- name: unchanged
SELECT 1 FROM assignments
WHERE device_key = %(key)s AND resident_id = %(resident_id)s
  AND lower(during) <= %(since)s AND upper_inf(during)

-- name: replace
DELETE FROM assignments WHERE device_key = %(key)s AND lower(during) >= %(since)s

-- name: cut
UPDATE assignments SET during = tstzrange(lower(during), %(since)s)
WHERE device_key = %(key)s AND during @> %(since)s::timestamptz

-- name: begin
INSERT INTO assignments (device_key, resident_id, during)
VALUES (%(key)s, %(resident_id)s, tstzrange(%(since)s, NULL))

-- name: end
WITH ahead AS (DELETE FROM assignments WHERE device_key = %(key)s AND lower(during) >= now())
UPDATE assignments SET during = tstzrange(lower(during), now())
WHERE device_key = %(key)s AND during @> now() AND lower(during) < now()
