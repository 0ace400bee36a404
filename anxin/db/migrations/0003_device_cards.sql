-- Everything that ingest needs to know of a device, in one row.
CREATE VIEW device_cards AS
SELECT d.key, d.id, d.kind, d.salt, d.secret_hash, d.revoked_at IS NOT NULL AS revoked,
       r.id AS resident_id,
       coalesce(r.place_id, d.place_id) AS place_id,
       coalesce(r.fall_risk, false) AS fall_risk,
       coalesce(r.wander_risk, false) AS wander_risk,
       coalesce(r.spo2_scale, 1) AS spo2_scale,
       coalesce(r.limits, '{}') AS limits,
       l.metrics, l.absent_since, l.present_since, l.active_at
FROM devices d
LEFT JOIN assignments a ON a.device_key = d.key AND a.during @> now()
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN latest l ON l.device_key = d.key;
