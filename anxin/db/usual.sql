-- name: hours
-- Today's hours so far beside the same hours of earlier days; steps are counted up, so of them the
-- highest counts, of everything else the mean.
WITH settings AS (
    SELECT (%(end)s::timestamptz AT TIME ZONE %(zone)s)::date AS today,
           extract(hour FROM %(end)s::timestamptz AT TIME ZONE %(zone)s)::integer AS hour
), hours AS MATERIALIZED (
    SELECT s.metric,
           (to_timestamp((p.point ->> 0)::double precision / 1000) AT TIME ZONE %(zone)s) AS at,
           (p.point ->> CASE s.metric WHEN 'steps' THEN 3 ELSE 1 END)::double precision AS value,
           (p.point ->> 4)::bigint AS n
    FROM series_of_hours(%(id)s, %(start)s, %(end)s, interval '1 hour', %(most)s, %(most_readings)s)
        AS s
    CROSS JOIN LATERAL jsonb_array_elements(('[' || s.series || ']')::jsonb) AS p (point)
    WHERE s.metric = ANY(%(metrics)s)
), local AS (
    SELECT metric, at::date AS day, extract(hour FROM at)::integer AS hour, value, n FROM hours
), days AS (
    SELECT metric, day,
           CASE metric WHEN 'steps' THEN max(value) ELSE sum(value * n) / sum(n) END AS value
    FROM local, settings WHERE local.hour <= settings.hour
    GROUP BY metric, day
), usual AS (
    SELECT metric, count(*)::integer AS days,
           percentile_cont(ARRAY[0.1, 0.5, 0.9]) WITHIN GROUP (ORDER BY value) AS band
    FROM days, settings WHERE day < today GROUP BY metric
), of_hours AS (
    SELECT metric, local.hour, count(*)::integer AS days,
           percentile_cont(ARRAY[0.1, 0.5, 0.9]) WITHIN GROUP (ORDER BY value) AS band
    FROM local, settings WHERE day < today GROUP BY metric, local.hour
)
SELECT m.metric, t.value AS today, coalesce(u.days, 0) AS days, u.band,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(h.hour, h.band[1], h.band[2], h.band[3], h.days)
                                  ORDER BY h.hour), '[]')
        FROM of_hours h WHERE h.metric = m.metric) AS hours
FROM (SELECT DISTINCT metric FROM hours) AS m
LEFT JOIN usual u ON u.metric = m.metric
LEFT JOIN days t ON t.metric = m.metric AND t.day = (SELECT today FROM settings)
ORDER BY m.metric

-- name: nights
SELECT night, in_bed_at, up_at, minutes, exits, readings FROM nights_of(
    %(id)s, %(first)s::date, %(last)s::date, %(end)s, %(zone)s, %(most_readings)s)
