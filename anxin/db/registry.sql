-- name: keys
SELECT key, id, salt, secret_hash FROM devices WHERE revoked_at IS NULL
ORDER BY key LIMIT %(most)s

-- name: cards_by_id
SELECT * FROM device_cards WHERE id = ANY(%(ids)s)

-- name: cards_by_key
SELECT * FROM device_cards WHERE key = ANY(%(keys)s)

-- name: open_alarms
SELECT subject, kind, priority, raised_at FROM alarms
WHERE handling <> 'closed' AND condition = 'present' AND subject = ANY(%(subjects)s)

-- name: recent_telemetry
SELECT device_key, (extract(epoch FROM ts) * 1000000)::bigint AS ts_us, presence,
       hr, rr, spo2, temp, sbp, battery
FROM telemetry
WHERE device_key = ANY(%(keys)s) AND flags = 0
  AND ts > now() - interval '6 minutes' AND ts < now() + interval '3 minutes'
ORDER BY device_key, ts

-- name: changes_since
SELECT (SELECT array_agg(DISTINCT device_key) FROM device_changes
        WHERE written_by >= %(since)s::text::xid8) AS keys,
       pg_snapshot_xmin(pg_current_snapshot())::text AS horizon
