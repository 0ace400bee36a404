-- name: answering
-- One row per alarm of the time and place, then one per group. Answered is the first time that
-- somebody took it or stood there; both come from the timeline.
WITH chosen AS MATERIALIZED (
    SELECT a.id, a.raised_at, a.priority, a.class, a.outcome, a.handling,
           p.path, coalesce(station.id, p.id) AS station_id, coalesce(station.name, p.name) AS station,
           taken.at - a.raised_at AS answered_in, there.at - a.raised_at AS arrived_in,
           coalesce(taken.actor_id, there.actor_id) AS carer_id,
           a.class <> 'technical' AND a.priority >= 2 AS is_call
    FROM alarms a
    LEFT JOIN residents r ON r.id = a.resident_id
    LEFT JOIN devices v ON v.key = a.device_key
    JOIN places p ON p.id = coalesce(r.place_id, a.place_id, v.place_id)
    LEFT JOIN LATERAL (
        SELECT q.id, q.name FROM places q
        WHERE q.id = ANY(string_to_array(trim(BOTH '/' FROM p.path), '/')::bigint[])
          AND q.kind IN ('facility', 'village', 'town', 'district')
        ORDER BY length(q.path) DESC LIMIT 1
    ) AS station ON true
    LEFT JOIN LATERAL (
        SELECT t.at, t.actor_id FROM timeline t
        WHERE t.alarm_id = a.id AND t.change IN ('acknowledged', 'on_site')
        ORDER BY t.id LIMIT 1
    ) AS taken ON true
    LEFT JOIN LATERAL (
        SELECT t.at, t.actor_id FROM timeline t
        WHERE t.alarm_id = a.id AND t.change = 'on_site' ORDER BY t.id LIMIT 1
    ) AS there ON true
    WHERE a.raised_at >= %(from)s::timestamptz AND a.raised_at < %(to)s::timestamptz
      AND starts_with(p.path, %(path)s::text)
      AND (%(place_id)s::bigint IS NULL
           OR starts_with(p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
      AND NOT a.detail @> '{"selftest": true}'
      AND a.outcome IS DISTINCT FROM 'test'
), grouped AS MATERIALIZED (
    SELECT c.*,
           CASE %(by)s::text WHEN 'day' THEN NULL ELSE c.station_id END AS group_place,
           CASE %(by)s::text
               WHEN 'day' THEN date_trunc('day', c.raised_at, %(zone)s::text)
               WHEN 'shift' THEN lower(s.during)
               ELSE %(from)s::timestamptz END AS group_from,
           CASE %(by)s::text
               WHEN 'day' THEN date_trunc('day', c.raised_at, %(zone)s::text) + interval '1 day'
               WHEN 'shift' THEN upper(s.during)
               ELSE %(to)s::timestamptz END AS group_to
    FROM chosen c
    LEFT JOIN LATERAL (
        SELECT f.during FROM shifts f JOIN places q ON q.id = f.place_id
        WHERE %(by)s::text = 'shift' AND f.post = 'first' AND f.during @> c.raised_at
          AND starts_with(c.path, q.path)
        ORDER BY length(q.path) DESC, lower(f.during) DESC LIMIT 1
    ) AS s ON true
), burden AS (
    -- For each alarm that needed nothing, how many such its carer had in the two hours up to it.
    SELECT g.group_place, g.group_from,
           count(*) OVER (PARTITION BY g.carer_id ORDER BY g.raised_at
                          RANGE BETWEEN interval '120 minutes' PRECEDING AND CURRENT ROW) AS load
    FROM grouped g
    WHERE g.carer_id IS NOT NULL AND g.outcome IN ('false', 'unknown')
), heaviest AS (
    SELECT group_place, group_from, max(load) AS load FROM burden GROUP BY 1, 2
), figures AS (
    SELECT g.group_place, g.group_from, g.group_to,
           CASE WHEN g.group_place IS NOT NULL THEN min(g.station) END AS station,
           count(*) AS alarms,
           count(*) FILTER (WHERE is_call) AS calls,
           count(*) FILTER (WHERE is_call AND answered_in <= interval '60 seconds') AS within_60,
           count(*) FILTER (WHERE is_call AND answered_in <= interval '180 seconds') AS within_180,
           count(*) FILTER (WHERE is_call AND answered_in IS NULL) AS unanswered,
           extract(epoch FROM percentile_cont(0.5) WITHIN GROUP (ORDER BY arrived_in)
                   FILTER (WHERE is_call))::float8 AS arrival_median_s,
           extract(epoch FROM percentile_cont(0.9) WITHIN GROUP (ORDER BY arrived_in)
                   FILTER (WHERE is_call))::float8 AS arrival_p90_s,
           count(*) FILTER (WHERE outcome = 'real') AS real,
           count(*) FILTER (WHERE outcome = 'false') AS false,
           count(*) FILTER (WHERE outcome = 'unknown') AS unknown,
           count(*) FILTER (WHERE outcome IS NULL) AS open
    FROM grouped g GROUP BY 1, 2, 3
)
SELECT f.group_place::text AS place_id, f.station, f.group_from AS "from", f.group_to AS "to",
       f.alarms::integer, f.calls::integer, f.within_60::integer, f.within_180::integer,
       f.unanswered::integer, f.arrival_median_s, f.arrival_p90_s,
       f.real::integer, f.false::integer, f.unknown::integer, f.open::integer,
       coalesce(h.load, 0)::integer AS burden,
       (SELECT count(*) FROM residents r JOIN places p ON p.id = r.place_id
        WHERE starts_with(p.path, coalesce((SELECT path FROM places WHERE id = f.group_place),
                                           (SELECT path FROM places WHERE id = %(place_id)s::bigint),
                                           %(path)s::text)))::integer AS residents
FROM figures f
LEFT JOIN heaviest h ON h.group_place IS NOT DISTINCT FROM f.group_place
                    AND h.group_from IS NOT DISTINCT FROM f.group_from
ORDER BY f.group_from NULLS LAST, f.group_place

-- name: devices
-- One row per device in use, with where it is (as its resident is, else where it stands), then one
-- per station. Battery: the limits that hold where nobody set others.
WITH chosen AS MATERIALIZED (
    SELECT v.key, v.id, v.kind, station.id AS station_id, station.name AS station,
           s.resident_id IS NOT NULL AS assigned, t.online, t.heard_at, t.battery, t.firmware,
           m.state, lower(s.during) AS since
    FROM devices v
    LEFT JOIN assignments s ON s.device_key = v.key AND s.during @> now()
    LEFT JOIN residents r ON r.id = s.resident_id
    LEFT JOIN places p ON p.id = coalesce(r.place_id, v.place_id)
    LEFT JOIN device_states t ON t.device_key = v.key
    LEFT JOIN device_monitoring m ON m.device_key = v.key
    LEFT JOIN LATERAL (
        SELECT q.id, q.name FROM places q
        WHERE q.id = ANY(string_to_array(trim(BOTH '/' FROM p.path), '/')::bigint[])
          AND q.kind IN ('facility', 'village', 'town', 'district')
        ORDER BY length(q.path) DESC LIMIT 1
    ) AS station ON true
    WHERE v.revoked_at IS NULL
      AND (%(path)s::text = '/' OR starts_with(p.path, %(path)s::text))
      AND (%(place_id)s::bigint IS NULL
           OR starts_with(p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
), versions AS (
    SELECT station_id, jsonb_object_agg(kind, counts) AS firmware
    FROM (
        SELECT station_id, kind, jsonb_object_agg(version, n) AS counts
        FROM (
            SELECT station_id, kind, coalesce(firmware, '') AS version, count(*) AS n
            FROM chosen GROUP BY 1, 2, 3
        ) AS each GROUP BY 1, 2
    ) AS kinds GROUP BY 1
)
SELECT c.station_id::text AS place_id, min(c.station) AS station, count(*)::integer AS devices,
       (count(*) FILTER (WHERE assigned))::integer AS assigned,
       (count(*) FILTER (WHERE online))::integer AS online,
       (count(*) FILTER (WHERE state = 'network-error' AND heard_at >= since))::integer AS silent,
       (count(*) FILTER (WHERE assigned AND coalesce(heard_at < since, true)))::integer AS never_heard,
       (count(*) FILTER (WHERE state = 'sensor-error'))::integer AS sensor_error,
       (count(*) FILTER (WHERE battery <= 15))::integer AS battery_low,
       (count(*) FILTER (WHERE battery <= 5))::integer AS battery_critical,
       (count(*) FILTER (WHERE battery IS NULL))::integer AS battery_unknown,
       (count(*) FILTER (WHERE EXISTS (
            SELECT 1 FROM quarantine q WHERE q.device_id = c.id)))::integer AS quarantined,
       (SELECT v.firmware FROM versions v WHERE v.station_id IS NOT DISTINCT FROM c.station_id)
FROM chosen c GROUP BY c.station_id ORDER BY c.station_id NULLS LAST
