-- name: note_listening
SELECT note_listening(%(kept)s)

-- name: silent
-- Devices that are missed, and those that have been quiet for a third of their time: when a network
-- fails, some of its devices are missed before the others. `site` is the facility or home that a
-- device stands in. `excused` tells that the alarm of its gateway or site names it, or did until
-- lately. A gateway counts as lost with its devices unless it was heard well after them: a connection that
-- broke without a word is noticed only after one and a half keep-alives.
SELECT m.device_key, m.device_id, m.kind, m.subject, m.resident_id, m.place_id, m.care_level,
       m.state IN ('network-error', 'sensor-error') AS missed, m.clock, m.patience, m.heard_at,
       m.quiet_since, m.never_heard, gateway.device_id AS gateway_id,
       coalesce(gateway.state = 'network-error' OR gateway.state <> 'undeployed'
                AND gateway.quiet_since < m.quiet_since + interval '100 seconds', false)
           AS gateway_missed, site.id AS site,
       EXISTS (
           SELECT 1 FROM alarms a
           WHERE a.subject IN ('d' || m.gateway_key, 'p' || site.id) AND a.subject <> m.subject
             AND a.kind = 'device_silent' AND a.detail -> 'devices' ? m.device_id
             AND (a.condition = 'present' AND a.handling <> 'closed'
                  OR EXISTS (SELECT 1 FROM timeline t
                             WHERE t.alarm_id = a.id AND t.change = 'recovered'
                               AND t.at > now() - m.patience * interval '1 second'))
       ) AS excused
FROM device_monitoring m
LEFT JOIN device_monitoring gateway ON gateway.device_key = m.gateway_key
LEFT JOIN places p ON p.id = m.place_id
LEFT JOIN LATERAL (
    SELECT s.id FROM places s
    WHERE s.id = ANY(string_to_array(btrim(p.path, '/'), '/')::bigint[])
      AND (s.kind IN ('facility', 'home') OR s.id = p.id)
    ORDER BY s.kind IN ('facility', 'home') DESC, length(s.path) LIMIT 1
) AS site ON true
WHERE m.state IN ('network-error', 'sensor-error')
   OR (m.state <> 'undeployed' AND m.patience <= 900
       AND m.quiet_since < now() - m.patience * interval '1 second' / 3)
ORDER BY m.subject, m.device_key

-- name: behind
-- What stands behind these gateways.
SELECT gateway_key, device_id, care_level
FROM device_monitoring WHERE gateway_key = ANY(%(gateways)s::integer[])
ORDER BY device_id

-- name: site_sizes
-- How many devices that are missed within minutes stand in each of these places.
SELECT site.id AS site, m.patience, count(*) AS devices
FROM places site
JOIN places p ON starts_with(p.path, site.path)
JOIN device_monitoring m ON m.place_id = p.id
WHERE site.id = ANY(%(sites)s::bigint[]) AND m.state <> 'undeployed' AND m.patience <= 900
GROUP BY site.id, m.patience

-- name: deaf
-- Spells lately over, and the one that lasts.
SELECT from_at, to_at, lasts, kept,
       (SELECT min(id) FROM places WHERE parent_id IS NULL HAVING count(*) = 1) AS place_id
FROM deaf_spells
WHERE to_at - from_at >= %(seconds)s * interval '1 second'
  AND to_at > now() - %(told)s * interval '1 second'
ORDER BY from_at

-- name: learn_intervals
-- How often the devices of a slice report, by what was received of them in two weeks: nine in ten
-- of their pauses are no longer. What came in one batch has no pause between.
WITH pauses AS (
    SELECT d.key, extract(epoch FROM r.at - lag(r.at) OVER (PARTITION BY d.key ORDER BY r.at)) AS s
    FROM devices d
    CROSS JOIN LATERAL (
        (SELECT received_at AS at FROM telemetry
         WHERE device_key = d.key AND ts > now() - interval '14 days' AND ts <= now()
         ORDER BY ts DESC LIMIT 200)
        UNION ALL
        (SELECT received_at FROM events
         WHERE device_key = d.key AND ts > now() - interval '14 days' AND ts <= now()
         ORDER BY ts DESC LIMIT 200)
    ) AS r
    WHERE d.revoked_at IS NULL AND d.key %% %(slices)s = %(slice)s
      AND d.kind NOT IN ('bed_sensor', 'radar', 'gateway', 'wearable')
), learned AS (
    SELECT key, greatest(60, percentile_cont(0.9) WITHIN GROUP (ORDER BY s))::real AS usual
    FROM pauses WHERE s >= 1 GROUP BY key HAVING count(*) >= %(least)s
)
INSERT INTO device_states AS s (device_key, usual_interval_seconds)
SELECT key, usual FROM learned ORDER BY key
ON CONFLICT (device_key) DO UPDATE SET usual_interval_seconds = excluded.usual_interval_seconds
WHERE s.usual_interval_seconds IS NULL
   OR abs(s.usual_interval_seconds - excluded.usual_interval_seconds)
      > 0.05 * s.usual_interval_seconds
