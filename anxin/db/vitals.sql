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
    SELECT metric, date_bin(%(step)s::interval, ts, 'epoch') AS bucket, count(*) AS n,
           avg(value) AS mean, min(value) AS low, max(value) AS high
    FROM (
        SELECT r.metric, r.ts, r.value FROM spans s CROSS JOIN LATERAL (
            SELECT metric, ts, value FROM readings
            WHERE device_key = s.device_key AND ts >= s.lo AND ts < s.hi) AS r
        LIMIT %(most_readings)s
    ) AS r
    GROUP BY metric, bucket LIMIT %(most)s
)
SELECT metric, count(*) AS points, sum(n)::bigint AS readings,
       string_agg(concat('[', (extract(epoch FROM bucket) * 1000)::bigint, ',', mean::real, ',',
                         low::real, ',', high::real, ',', n, ']'), ',' ORDER BY bucket) AS series
FROM buckets GROUP BY metric ORDER BY metric

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
    SELECT v.metric, date_bin(%(step)s::interval, v.bucket, 'epoch') AS bucket,
           v.n, v.mean, v.low, v.high
    FROM spans s JOIN {rollup} v
        ON v.device_key = s.device_key AND v.bucket >= s.first AND v.bucket < s.last
    WHERE NOT EXISTS (SELECT 1 FROM due d WHERE d.device_key = v.device_key AND d.bucket = v.bucket)
    UNION ALL
    SELECT r.metric, date_bin(%(step)s::interval, r.ts, 'epoch'), 1, r.value, r.value::real, r.value::real
    FROM pieces p CROSS JOIN LATERAL (
        SELECT metric, ts, value FROM readings
        WHERE device_key = p.device_key AND ts >= p.lo AND ts < p.hi) AS r
), buckets AS (
    SELECT metric, bucket, sum(n) AS n, sum(n * mean) / sum(n) AS mean,
           min(low) AS low, max(high) AS high
    FROM parts GROUP BY metric, bucket LIMIT %(most)s
)
SELECT metric, count(*) AS points, sum(n)::bigint AS readings,
       string_agg(concat('[', (extract(epoch FROM bucket) * 1000)::bigint, ',', mean::real, ',',
                         low::real, ',', high::real, ',', n, ']'), ',' ORDER BY bucket) AS series
FROM buckets GROUP BY metric ORDER BY metric
