-- name: plan
-- How many series a resident's devices of that time can have; no row when the caller may not know.
SELECT count_series(r.id, %(start)s::timestamptz, %(end)s::timestamptz) AS series
FROM residents r JOIN places p ON p.id = r.place_id
WHERE r.id = %(id)s
  AND (starts_with(p.path, %(path)s::text) OR r.id = ANY(%(residents)s::bigint[]))

-- name: of_readings
-- Straight from the readings, for short spans and fine steps.
SELECT metric, points, readings, series FROM series_of_readings(
    %(id)s, %(start)s, %(end)s, %(step)s, %(most)s, %(most_readings)s)

-- name: of_minutes
SELECT metric, points, readings, series FROM series_of_minutes(
    %(id)s, %(start)s, %(end)s, %(step)s, %(most)s, %(most_readings)s)

-- name: of_hours
SELECT metric, points, readings, series FROM series_of_hours(
    %(id)s, %(start)s, %(end)s, %(step)s, %(most)s, %(most_readings)s)
