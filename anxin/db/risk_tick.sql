-- name: alive
SELECT now() AS now

-- name: join
-- Shards are shared by who holds this lock: their number says how many each takes.
SELECT pg_advisory_lock_shared(4155041)

-- name: shares
-- Locks of this database: who takes part, and which shards are held by whom.
SELECT count(DISTINCT pid) FILTER (WHERE objsubid = 1 AND objid = 4155041) AS workers,
       coalesce(array_agg(objid::integer) FILTER (
           WHERE objsubid = 2 AND classid = 4155042 AND pid = pg_backend_pid()), '{}') AS mine,
       coalesce(array_agg(objid::integer) FILTER (
           WHERE objsubid = 2 AND classid = 4155042 AND pid <> pg_backend_pid()), '{}') AS others
FROM pg_locks
WHERE locktype = 'advisory' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())

-- name: take
SELECT pg_try_advisory_lock(4155042, %(shard)s) AS taken

-- name: give_back
SELECT pg_advisory_unlock(4155042, %(shard)s)

-- name: members
-- Who is judged, in order of id. A station is the facility, or the village of those at home.
SELECT coalesce(array_agg(r.id ORDER BY r.id), '{}') AS id,
       coalesce(array_agg(r.place_id ORDER BY r.id), '{}') AS place,
       coalesce(array_agg(coalesce(s.id, r.place_id) ORDER BY r.id), '{}') AS station,
       coalesce(array_agg((r.spo2_scale = 2)::integer::float8 ORDER BY r.id), '{}') AS scale2,
       coalesce(array_agg(coalesce((current_date - r.born) / 365.25, 'NaN')::float8
                          ORDER BY r.id), '{}') AS age,
       coalesce(array_agg(CASE r.sex WHEN 'male' THEN 1::float8 WHEN 'female' THEN 0 ELSE 'NaN' END
                          ORDER BY r.id), '{}') AS sex
FROM residents r JOIN places p ON p.id = r.place_id
LEFT JOIN LATERAL (
    SELECT q.id FROM places q
    WHERE q.id = ANY(string_to_array(btrim(p.path, '/'), '/')::bigint[])
      AND q.kind IN ('facility', 'village') LIMIT 1
) AS s ON true
WHERE r.id %% %(shards)s = ANY(%(mine)s::bigint[])

-- name: newest
-- What the devices of these residents measured last, some thousand devices a row; times in seconds,
-- NaN for what there is not.
WITH heard AS MATERIALIZED (
    SELECT l.device_key, a.resident_id, l.ts, l.received_at, l.metrics AS m,
           CASE WHEN lower_inf(a.during) THEN '-infinity' ELSE lower(a.during) END AS since
    FROM latest l JOIN assignments a ON a.device_key = l.device_key AND a.during @> now()
    WHERE l.received_at > %(since)s::timestamptz
      AND a.resident_id %% %(shards)s = ANY(%(mine)s::bigint[])
      AND l.metrics ?| '{hr,rr,spo2,temp,sbp,dbp,consciousness,oxygen}'
)
SELECT array_agg(device_key::bigint) AS device, array_agg(resident_id) AS resident,
       array_agg(date_part('epoch', ts)) AS ts,
       array_agg(date_part('epoch', received_at)) AS received,
       array_agg(date_part('epoch', since)) AS since,
       array_agg(coalesce(array_position('{unknown,absent,present}'::text[], m -> 'presence' ->> 0) - 1,
                          0)::float8) AS presence,
       array_agg(coalesce((m -> 'hr' ->> 0)::float8, 'NaN')) AS hr,
       array_agg(coalesce((m -> 'hr' ->> 1)::float8 / 1000, 'NaN')) AS hr_at,
       array_agg(coalesce((m -> 'rr' ->> 0)::float8, 'NaN')) AS rr,
       array_agg(coalesce((m -> 'rr' ->> 1)::float8 / 1000, 'NaN')) AS rr_at,
       array_agg(coalesce((m -> 'spo2' ->> 0)::float8, 'NaN')) AS spo2,
       array_agg(coalesce((m -> 'spo2' ->> 1)::float8 / 1000, 'NaN')) AS spo2_at,
       array_agg(coalesce((m -> 'temp' ->> 0)::float8, 'NaN')) AS temp,
       array_agg(coalesce((m -> 'temp' ->> 1)::float8 / 1000, 'NaN')) AS temp_at,
       array_agg(coalesce((m -> 'sbp' ->> 0)::float8, 'NaN')) AS sbp,
       array_agg(coalesce((m -> 'sbp' ->> 1)::float8 / 1000, 'NaN')) AS sbp_at,
       array_agg(coalesce((m -> 'dbp' ->> 0)::float8, 'NaN')) AS dbp,
       array_agg(coalesce((m -> 'dbp' ->> 1)::float8 / 1000, 'NaN')) AS dbp_at,
       array_agg(coalesce((strpos('ACVPU', m -> 'consciousness' ->> 0) - 1)::float8, 'NaN'))
           AS consciousness,
       array_agg(coalesce((m -> 'consciousness' ->> 1)::float8 / 1000, 'NaN')) AS consciousness_at,
       array_agg(coalesce((m -> 'oxygen' ->> 0)::boolean::integer::float8, 'NaN')) AS oxygen,
       array_agg(coalesce((m -> 'oxygen' ->> 1)::float8 / 1000, 'NaN')) AS oxygen_at
FROM heard
GROUP BY device_key / %(chunk)s

-- name: observed
-- What staff observed in the last hours and was not taken back, of those about whom anything was
-- written since: all of it, so that a correction undoes what it corrects.
WITH told AS (
    SELECT DISTINCT resident_id FROM observations
    WHERE recorded_at > %(since)s::timestamptz
      AND resident_id %% %(shards)s = ANY(%(mine)s::bigint[])
)
SELECT t.resident_id, o.id, date_part('epoch', o.at) AS at,
       strpos('ACVPU', o.consciousness) - 1 AS consciousness, o.oxygen,
       o.hr, o.rr, o.spo2, o.temp, o.sbp, o.dbp
FROM told t
LEFT JOIN observations o ON o.resident_id = t.resident_id AND NOT o.withdrawn
    AND o.at > now() - interval '24 hours'
    AND NOT EXISTS (SELECT 1 FROM observations later WHERE later.corrects = o.id)
ORDER BY t.resident_id, o.at, o.id

-- name: hours
-- Means by the hour of some residents, over their devices of that time. By device first: the key of
-- the rollup begins with it.
SELECT coalesce(array_agg(resident_id), '{}') AS resident,
       coalesce(array_agg(hour), '{}') AS hour,
       coalesce(array_agg(coalesce(hr, 'NaN')), '{}') AS hr,
       coalesce(array_agg(coalesce(rr, 'NaN')), '{}') AS rr,
       coalesce(array_agg(coalesce(spo2, 'NaN')), '{}') AS spo2,
       coalesce(array_agg(coalesce(temp, 'NaN')), '{}') AS temp,
       coalesce(array_agg(coalesce(sbp, 'NaN')), '{}') AS sbp,
       coalesce(array_agg(coalesce(dbp, 'NaN')), '{}') AS dbp
FROM (
    SELECT a.resident_id, (date_part('epoch', h.bucket) / 3600)::bigint AS hour,
           sum(h.hr_n * h.hr_mean) / nullif(sum(h.hr_n), 0) AS hr,
           sum(h.rr_n * h.rr_mean) / nullif(sum(h.rr_n), 0) AS rr,
           sum(h.spo2_n * h.spo2_mean) / nullif(sum(h.spo2_n), 0) AS spo2,
           sum(h.temp_n * h.temp_mean) / nullif(sum(h.temp_n), 0) AS temp,
           sum(h.sbp_n * h.sbp_mean) / nullif(sum(h.sbp_n), 0) AS sbp,
           sum(h.dbp_n * h.dbp_mean) / nullif(sum(h.dbp_n), 0) AS dbp
    FROM assignments a
    CROSS JOIN LATERAL (
        SELECT x.bucket, x.hr_n, x.hr_mean, x.rr_n, x.rr_mean, x.spo2_n, x.spo2_mean, x.temp_n,
               x.temp_mean, x.sbp_n, x.sbp_mean, x.dbp_n, x.dbp_mean
        FROM hour_rollup x
        WHERE x.device_key = a.device_key AND x.bucket >= %(from)s::timestamptz
          AND x.bucket < %(to)s::timestamptz AND a.during @> x.bucket
        OFFSET 0
    ) AS h
    WHERE a.resident_id = ANY(%(residents)s::bigint[])
      AND a.during && tstzrange(%(from)s::timestamptz, %(to)s::timestamptz)
    GROUP BY a.resident_id, h.bucket
) AS means

-- name: episodes
-- The model's own alarms of these residents: the last of each kind, open or closed lately.
SELECT DISTINCT ON (resident_id, kind) resident_id, kind, priority, condition, handling,
       date_part('epoch', closed_at) AS closed_at,
       date_part('epoch', last_at) AS last_at
FROM alarms
WHERE kind IN ('early_warning', 'risk_rising', 'unusual')
  AND raised_at > now() - interval '30 days'
  AND (handling <> 'closed' OR closed_at > now() - %(bundle)s * interval '1 second')
  AND resident_id %% %(shards)s = ANY(%(mine)s::bigint[])
ORDER BY resident_id, kind, id DESC

-- name: alarmed
-- Who has alarms of the body that last, and the highest priority of those of rules (0: none).
SELECT coalesce(array_agg(resident_id), '{}') AS resident,
       coalesce(array_agg(rules), '{}') AS rules
FROM (
    SELECT resident_id, coalesce(max(priority) FILTER (
               WHERE kind NOT IN ('early_warning', 'risk_rising', 'unusual')), 0)::bigint AS rules
    FROM alarms
    WHERE handling <> 'closed' AND class IN ('physiological', 'emergency')
      AND condition = 'present' AND resident_id IS NOT NULL
    GROUP BY resident_id
) AS open

-- name: modes
-- What each model may do: everywhere, then place by place, from the widest to the narrowest.
SELECT m.model, m.mode, m.place_id,
       (SELECT array_agg(r.id) FROM residents r JOIN places p ON p.id = r.place_id
        WHERE starts_with(p.path, q.path)
          AND r.id %% %(shards)s = ANY(%(mine)s::bigint[])) AS residents
FROM model_modes m LEFT JOIN places q ON q.id = m.place_id
ORDER BY length(q.path) NULLS FIRST

-- name: peaks
-- The highest learned scores of the last week, by resident and bundle of six hours.
SELECT coalesce(array_agg(resident_id), '{}') AS resident, coalesce(array_agg(block), '{}') AS block,
       coalesce(array_agg(coalesce(deterioration, 'NaN')), '{}') AS deterioration,
       coalesce(array_agg(coalesce(novelty, 'NaN')), '{}') AS novelty
FROM (
    SELECT resident_id, floor(date_part('epoch', at) / %(bundle)s)::bigint AS block,
           max(deterioration)::float8 AS deterioration, max(novelty)::float8 AS novelty
    FROM risk_history
    WHERE at > now() - interval '7 days' AND resident_id %% %(shards)s = ANY(%(mine)s::bigint[])
    GROUP BY 1, 2
) AS highest

-- name: told
-- Alarms of the learned layers in the last week, by bundle.
SELECT coalesce(array_agg(resident_id), '{}') AS resident,
       coalesce(array_agg(floor(date_part('epoch', raised_at) / %(bundle)s)::bigint), '{}') AS block,
       coalesce(array_agg((kind = 'risk_rising')::integer::bigint), '{}') AS rising
FROM alarms
WHERE kind IN ('risk_rising', 'unusual') AND raised_at > now() - interval '7 days'
  AND resident_id %% %(shards)s = ANY(%(mine)s::bigint[])

-- name: labels
-- What people found about the alarms of the learned model and of NEWS2, station by station.
SELECT s.id AS station, array_agg(f.resident_id) AS resident,
       array_agg((f.kind = 'risk_rising')::integer::bigint) AS of_model,
       array_agg((f.outcome = 'real')::integer::bigint) AS real
FROM risk_feedback f
JOIN residents r ON r.id = f.resident_id JOIN places p ON p.id = r.place_id
JOIN LATERAL (
    SELECT q.id FROM places q
    WHERE q.id = ANY(string_to_array(btrim(p.path, '/'), '/')::bigint[])
      AND q.kind IN ('facility', 'village') LIMIT 1
) AS s ON true
WHERE f.kind IN ('risk_rising', 'early_warning')
  AND f.closed_at > now() - %(days)s * interval '1 day'
GROUP BY s.id

-- name: baselines
SELECT coalesce(array_agg(resident_id), '{}') AS resident,
       coalesce(array_agg(date_part('epoch', at)), '{}') AS at,
       coalesce(string_agg(state, ''), '') AS state
FROM baselines
WHERE layout = %(layout)s AND octet_length(state) = %(size)s
  AND resident_id %% %(shards)s = ANY(%(mine)s::bigint[])

-- name: keep_baselines
INSERT INTO baselines AS b (resident_id, at, layout, state, usual)
SELECT r.id, to_timestamp(new.at), %(layout)s, new.state, new.usual::jsonb
FROM unnest(%(residents)s::bigint[], %(ats)s::float8[], %(states)s::bytea[], %(usuals)s::text[])
     AS new (resident, at, state, usual)
JOIN residents r ON r.id = new.resident
ORDER BY r.id
ON CONFLICT (resident_id) DO UPDATE SET at = excluded.at, layout = excluded.layout,
    state = excluded.state, usual = excluded.usual

-- name: keep_scores
-- Who is gone meanwhile is left out.
WITH new AS (
    SELECT r.id, n.*
    FROM unnest(%(residents)s::bigint[], %(data_ats)s::float8[], %(scores)s::smallint[],
                %(mosts)s::smallint[], %(completes)s::boolean[], %(bands)s::text[],
                %(deteriorations)s::real[], %(novelties)s::real[], %(priorities)s::smallint[],
                %(models)s::text[], %(explanations)s::text[], %(remember)s::boolean[])
         AS n (resident, data_at, score, possible_max, complete, band, deterioration, novelty,
               priority, model, explanation, remembered)
    JOIN residents r ON r.id = n.resident
), remembered AS (
    INSERT INTO risk_history (resident_id, at, score, possible_max, complete, band, deterioration,
                              novelty, priority, model)
    SELECT id, now(), score, possible_max, complete, band, deterioration, novelty, priority, model
    FROM new WHERE remembered
    ON CONFLICT (resident_id, at) DO NOTHING
)
INSERT INTO risk AS k (resident_id, at, data_at, score, possible_max, complete, band, deterioration,
                       novelty, priority, model, explanation)
SELECT id, now(), to_timestamp(data_at), score, possible_max, complete, band, deterioration, novelty,
       priority, model, explanation::jsonb
FROM new ORDER BY id
ON CONFLICT (resident_id) DO UPDATE SET
    at = excluded.at, data_at = excluded.data_at, score = excluded.score,
    possible_max = excluded.possible_max, complete = excluded.complete, band = excluded.band,
    deterioration = excluded.deterioration, novelty = excluded.novelty,
    priority = excluded.priority, model = excluded.model, explanation = excluded.explanation

-- name: last_scores
-- How each stood when it was last written, so that a restart writes no line of history twice.
SELECT coalesce(array_agg(k.resident_id), '{}') AS resident,
       coalesce(array_agg(date_part('epoch', k.at)), '{}') AS at,
       coalesce(array_agg(k.priority::bigint), '{}') AS priority,
       coalesce(array_agg(array_position('{low,low-medium,medium,high}'::text[], k.band)::bigint - 1), '{}')
           AS band
FROM risk k WHERE k.resident_id %% %(shards)s = ANY(%(mine)s::bigint[])

-- name: set_mode
-- What the platform decides by itself, and tells why: only ever something more careful.
INSERT INTO model_modes AS m (model, place_id, mode, why)
SELECT %(model)s, p.id, %(mode)s, %(why)s FROM places p WHERE p.id = %(place_id)s
ON CONFLICT (model, place_id) DO UPDATE SET mode = excluded.mode, why = excluded.why, since = now(),
    by_id = NULL
WHERE m.mode = 'alarming'

-- name: keep_state
INSERT INTO model_states AS s (model, version, at, fault, state)
VALUES (%(model)s, %(version)s, now(), %(fault)s, %(state)s::jsonb)
ON CONFLICT (model) DO UPDATE SET version = excluded.version, at = excluded.at,
    fault = excluded.fault, state = excluded.state
