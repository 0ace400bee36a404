-- Rollups of TimescaleDB: the marks of rollup_due are settled in three steps that cannot share a
-- transaction, because a refresh commits by itself. One worker at a time, each as a statement of
-- its own: timescale_lock; timescale_due; for each row the two refreshes; timescale_settled with the
-- ids of that row; timescale_unlock. A worker that dies in between leaves its marks, and the next
-- one refreshes again: the result is the same.

-- name: timescale_present
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
   AND to_regprocedure('roll_up(timestamptz, integer)') IS NULL AS present

-- name: timescale_lock
SELECT pg_try_advisory_lock(4155022) AS locked

-- name: timescale_unlock
SELECT pg_advisory_unlock(4155022) AS unlocked

-- name: timescale_due
-- One row per hour that has marks: the window of its due minutes, and exactly which marks they are.
-- A mark that commits during the refresh is not among them and stays for the next round.
-- Wider windows would refresh everything between a late reading and now.
SELECT date_trunc('hour', minute, 'UTC') AS hour,
    date_trunc('hour', minute, 'UTC') + interval '1 hour' AS hour_end,
    min(minute) AS first_minute,
    max(minute) + interval '1 minute' AS minute_end,
    array_agg(id) AS ids
FROM (SELECT id, minute FROM rollup_due WHERE marked_at < %(settled)s ORDER BY id LIMIT %(most)s)
    AS due
GROUP BY 1, 2
ORDER BY 1

-- name: timescale_refresh_minutes
CALL refresh_continuous_aggregate(
    'minute_rollup', %(first_minute)s::timestamptz, %(minute_end)s::timestamptz)

-- name: timescale_refresh_hour
CALL refresh_continuous_aggregate('hour_rollup', %(hour)s::timestamptz, %(hour_end)s::timestamptz)

-- name: timescale_settled
DELETE FROM rollup_due WHERE id = ANY (%(ids)s)
