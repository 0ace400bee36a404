-- name: of
-- What the model says of a resident; empty where nothing was scored yet.
SELECT r.id::text AS resident_id, k.at, k.data_at, k.score, k.possible_max, k.complete, k.band,
       k.deterioration, k.novelty, k.priority, k.model, k.explanation, b.usual, now() AS now,
       (SELECT coalesce(jsonb_object_agg(m.model, m.mode), '{}') FROM (
            SELECT DISTINCT ON (m.model) m.model, m.mode
            FROM model_modes m LEFT JOIN places q ON q.id = m.place_id
            WHERE m.place_id IS NULL OR starts_with(p.path, q.path)
            ORDER BY m.model, length(q.path) DESC NULLS LAST) AS m) AS modes
FROM residents r JOIN places p ON p.id = r.place_id
LEFT JOIN risk k ON k.resident_id = r.id
LEFT JOIN baselines b ON b.resident_id = r.id
WHERE r.id = %(id)s
  AND (starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[]))

-- name: history
SELECT h.at, h.score, h.possible_max, h.complete, h.band, h.deterioration, h.novelty, h.priority,
       h.model
FROM risk_history h
WHERE h.resident_id = %(id)s AND h.at >= %(from)s::timestamptz AND h.at < %(to)s::timestamptz
  AND (%(before)s::timestamptz IS NULL OR h.at < %(before)s::timestamptz)
ORDER BY h.at DESC LIMIT %(limit)s

-- name: observations
SELECT o.id::text, o.at, o.recorded_at, u.username AS by, o.corrects::text,
       later.id::text AS corrected_by, o.withdrawn, o.consciousness, o.oxygen, o.hr, o.rr, o.spo2,
       o.temp, o.sbp, o.dbp
FROM observations o
LEFT JOIN users u ON u.id = o.by_id
LEFT JOIN observations later ON later.corrects = o.id
WHERE o.resident_id = %(id)s AND (%(before)s::bigint IS NULL OR o.id < %(before)s::bigint)
ORDER BY o.id DESC LIMIT %(limit)s

-- name: observe
WITH made AS (
    INSERT INTO observations (resident_id, at, by_id, corrects, consciousness, oxygen, hr, rr, spo2,
                              temp, sbp, dbp, withdrawn)
    SELECT r.id, coalesce(%(at)s::timestamptz, now()), %(by)s, %(corrects)s::bigint,
           %(consciousness)s::text, %(oxygen)s::boolean, %(hr)s::real, %(rr)s::real, %(spo2)s::real,
           %(temp)s::real, %(sbp)s::real, %(dbp)s::real, %(withdrawn)s
    FROM residents r JOIN places p ON p.id = r.place_id
    WHERE r.id = %(id)s AND starts_with(p.path, %(path)s::text)
    RETURNING *
)
SELECT m.id::text, m.at, m.recorded_at, u.username AS by, m.corrects::text,
       NULL AS corrected_by, m.withdrawn, m.consciousness, m.oxygen, m.hr, m.rr, m.spo2, m.temp,
       m.sbp, m.dbp
FROM made m LEFT JOIN users u ON u.id = m.by_id

-- name: models
SELECT m.model, coalesce(s.version, '') AS version, s.at, s.fault, coalesce(s.state, '{}') AS state,
       m.modes
FROM (
    SELECT model, jsonb_agg(jsonb_build_object(
               'place_id', place_id::text, 'mode', mode, 'since', since, 'why', why,
               'by', (SELECT username FROM users u WHERE u.id = by_id))
               ORDER BY place_id NULLS FIRST) AS modes
    FROM model_modes GROUP BY model
) AS m
LEFT JOIN model_states s ON s.model = m.model
ORDER BY array_position(ARRAY['news2', 'deterioration', 'novelty', 'rhythm'], m.model)

-- name: rates
-- Alarms of the models at each station in the last days, and how they ended. Stations where nothing
-- happened are named too: none is a rate.
WITH homes AS (
    SELECT r.id, s.id AS station
    FROM residents r JOIN places p ON p.id = r.place_id
    CROSS JOIN LATERAL (
        SELECT q.id FROM places q
        WHERE q.id = ANY(string_to_array(btrim(p.path, '/'), '/')::bigint[])
          AND q.kind IN ('facility', 'village') LIMIT 1
    ) AS s
    WHERE starts_with(p.path, %(path)s::text)
), happened AS (
    SELECT h.station, a.kind, count(*) AS alarms,
           count(*) FILTER (WHERE a.outcome = 'real') AS real,
           count(*) FILTER (WHERE a.outcome = 'false') AS "false"
    FROM alarms a JOIN homes h ON h.id = a.resident_id
    WHERE a.kind IN ('early_warning', 'risk_rising', 'unusual')
      AND a.raised_at > now() - %(days)s * interval '1 day'
    GROUP BY h.station, a.kind
)
SELECT s.station::text AS place_id, s.residents, k.kind, coalesce(x.alarms, 0) AS alarms,
       coalesce(x.real, 0) AS real, coalesce(x."false", 0) AS "false"
FROM (SELECT station, count(*) AS residents FROM homes GROUP BY station) AS s
CROSS JOIN (VALUES ('early_warning'), ('risk_rising'), ('unusual')) AS k (kind)
LEFT JOIN happened x ON x.station = s.station AND x.kind = k.kind
ORDER BY s.station, k.kind

-- name: set_mode
INSERT INTO model_modes (model, place_id, mode, why, by_id)
VALUES (%(model)s, %(place_id)s::bigint, %(mode)s, %(why)s, %(by)s)
ON CONFLICT (model, place_id) DO UPDATE SET mode = excluded.mode, why = excluded.why,
    by_id = excluded.by_id, since = now()
RETURNING place_id::text, mode, since, why,
          (SELECT username FROM users u WHERE u.id = by_id) AS by
