-- name: plan
-- How many series a resident's devices of that time can have; no row when the caller may not know.
SELECT (SELECT count(DISTINCT k.metric)
        FROM assignments a
        JOIN latest l ON l.device_key = a.device_key
        CROSS JOIN LATERAL jsonb_object_keys(l.metrics) AS k (metric)
        WHERE a.resident_id = r.id
          AND a.during && tstzrange(%(start)s::timestamptz, %(end)s::timestamptz)) AS series
FROM residents r JOIN places p ON p.id = r.place_id
WHERE r.id = %(id)s
  AND (starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[]))

-- name: raw
-- Buckets straight from the readings, for short spans and fine steps.
WITH spans AS MATERIALIZED (
    SELECT device_key, greatest(lower(during), %(start)s::timestamptz) AS lo,
           least(upper(during), %(end)s::timestamptz) AS hi
    FROM assignments
    WHERE resident_id = %(id)s AND during && tstzrange(%(start)s::timestamptz, %(end)s::timestamptz)
), buckets AS (
    SELECT date_bin(%(step)s::interval, t.ts, 'epoch') AS bucket, count(*) AS taken, {of_readings}
    FROM (
        SELECT t.* FROM spans s JOIN telemetry t
            ON t.device_key = s.device_key AND t.ts >= s.lo AND t.ts < s.hi
        LIMIT %(most_readings)s
    ) AS t
    GROUP BY 1
)
{series}

-- name: rolled
-- Buckets from a rollup: its whole units inside each assignment, except those that still wait to
-- be rolled up. These, and the edges of an assignment inside a unit, come from the readings.
WITH spans AS MATERIALIZED (
    SELECT device_key, lo, hi, least(hi, first) AS first,
           greatest(least(hi, first), date_bin('{unit}', hi, 'epoch')) AS last
    FROM (
        SELECT device_key, lo, hi,
               date_bin('{unit}', lo + interval '{unit}' - interval '1 microsecond', 'epoch') AS first
        FROM (
            SELECT device_key, greatest(lower(during), %(start)s::timestamptz) AS lo,
                   least(upper(during), %(end)s::timestamptz) AS hi
            FROM assignments
            WHERE resident_id = %(id)s
              AND during && tstzrange(%(start)s::timestamptz, %(end)s::timestamptz)
        ) AS owned
    ) AS aligned
), due AS MATERIALIZED (
    SELECT DISTINCT s.device_key, date_bin('{unit}', d.minute, 'epoch') AS bucket
    FROM spans s JOIN rollup_due d
        ON d.device_key = s.device_key AND d.minute >= s.first AND d.minute < s.last
), pieces AS (
    SELECT device_key, lo, first AS hi FROM spans WHERE lo < first
    UNION ALL SELECT device_key, last, hi FROM spans WHERE last < hi
    UNION ALL SELECT device_key, bucket, bucket + interval '{unit}' FROM due
), parts AS (
    SELECT date_bin(%(step)s::interval, r.bucket, 'epoch') AS bucket, {of_rollup}
    FROM spans s JOIN {rollup} r
        ON r.device_key = s.device_key AND r.bucket >= s.first AND r.bucket < s.last
    WHERE NOT EXISTS (SELECT 1 FROM due d WHERE d.device_key = r.device_key AND d.bucket = r.bucket)
    GROUP BY 1
    UNION ALL
    SELECT date_bin(%(step)s::interval, t.ts, 'epoch'), {of_readings}
    FROM pieces p JOIN telemetry t ON t.device_key = p.device_key AND t.ts >= p.lo AND t.ts < p.hi
    GROUP BY 1
), buckets AS (
    SELECT bucket, 0 AS taken, {of_parts} FROM parts GROUP BY bucket
)
{series}

-- name: series
-- The wide buckets as one row per metric: aggregating wide and turning at the end is three times
-- as fast as the other way round. A value is written as the real number that was sent.
SELECT metric, count(*) AS points, (SELECT sum(taken)::bigint FROM buckets) AS readings,
       string_agg(concat('[', (extract(epoch FROM bucket) * 1000)::bigint, ',', mean::real, ',',
                         low, ',', high, ',', n, ']'), ',' ORDER BY bucket) AS series
FROM (
    SELECT v.metric, b.bucket, v.n, v.mean, v.low, v.high
    FROM buckets b CROSS JOIN LATERAL (VALUES {rows}) AS v (metric, n, mean, low, high)
    WHERE v.n > 0 LIMIT %(most)s
) AS points
GROUP BY metric ORDER BY metric

-- name: of_rollup
sum({m}_n) AS {m}_n, sum({m}_n * {m}_mean) AS {m}_sum, min({m}_min) AS {m}_min, max({m}_max) AS {m}_max

-- name: of_readings
count({m}) AS {m}_n, sum({m}::double precision) AS {m}_sum, min({m})::real AS {m}_min, max({m})::real AS {m}_max

-- name: of_parts
sum({m}_n)::bigint AS {m}_n, sum({m}_sum) AS {m}_sum, min({m}_min) AS {m}_min, max({m}_max) AS {m}_max

-- name: rows
('{m}', b.{m}_n, b.{m}_sum / nullif(b.{m}_n, 0), b.{m}_min, b.{m}_max)
