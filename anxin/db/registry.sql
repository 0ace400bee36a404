-- name: keys
SELECT key, id, salt, secret_hash, old_salt, old_secret_hash, old_until, certificates_from,
       gateway_key
FROM devices WHERE revoked_at IS NULL
ORDER BY key LIMIT %(most)s

-- name: links
-- These devices and those behind them, with the gateway that may speak for each.
SELECT key, id, CASE WHEN revoked_at IS NULL THEN gateway_key END AS gateway_key
FROM devices WHERE key = ANY(%(keys)s) OR gateway_key = ANY(%(keys)s)

-- name: end_overlap
UPDATE devices SET old_until = NULL WHERE key = %(key)s AND secret_hash = %(secret_hash)s

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

-- name: note_arrivals
INSERT INTO device_states AS s (device_key, connected_at, network, tls, certificate_until)
SELECT a.key, now(), a.network, a.tls, a.until
FROM unnest(%(keys)s::int[], %(networks)s::text[], %(tls)s::text[], %(untils)s::timestamptz[])
     AS a (key, network, tls, until)
JOIN devices d ON d.key = a.key
ORDER BY a.key
ON CONFLICT (device_key) DO UPDATE SET
    connected_at = excluded.connected_at, network = excluded.network, tls = excluded.tls,
    certificate_until = excluded.certificate_until
