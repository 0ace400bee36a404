-- Telemetry on TimescaleDB: hypertable, columnstore, continuous aggregates, retention policy.
-- Views and functions have the names and shapes of the plain form.

CREATE EXTENSION IF NOT EXISTS timescaledb;

DO $$
DECLARE
    version_ text := (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb');
    parts integer[] := string_to_array(substring(version_ FROM '^[0-9]+[.][0-9]+'), '.')::integer[];
BEGIN
    IF parts < ARRAY[2, 18] THEN
        RAISE EXCEPTION 'Anxin needs TimescaleDB 2.18 or newer, here is %. Update the extension.',
            version_;
    END IF;
    IF current_setting('timescaledb.license') <> 'timescale' THEN
        RAISE EXCEPTION 'This TimescaleDB has its Apache licence only, without columnstore and '
            'continuous aggregates. Set timescaledb.license to timescale, or use a server without '
            'the extension.';
    END IF;
END $$;

-- One row per telemetry object; a metric that was not sent is NULL.
CREATE TABLE telemetry (
    ts            timestamptz NOT NULL,
    received_at   timestamptz NOT NULL,
    device_key    integer NOT NULL,
    flags         smallint NOT NULL DEFAULT 0,
    presence      smallint,
    consciousness smallint,
    oxygen        boolean,
    hr            real,
    rr            real,
    spo2          real,
    temp          real,
    sbp           real,
    dbp           real,
    glucose       real,
    weight        real,
    steps         integer,
    movement      real,
    battery       real,
    rssi          real,
    lat           double precision,
    lon           double precision,
    room_temp     real,
    humidity      real,
    seq           bigint,
    extra         jsonb,
    PRIMARY KEY (device_key, ts)
);
-- The index that comes by default would cost every insert a second tree. Rows arrive in the order
-- of time, so a block range index finds a minute as well and takes a few pages.
SELECT create_hypertable('telemetry', by_range('ts', INTERVAL '1 day'),
                         create_default_indexes => false);
CREATE INDEX telemetry_time ON telemetry USING brin (ts) WITH (pages_per_range = 16, autosummarize);

-- Ages are counted from the day a chunk came to be, not from the times in it: a recording keeps its
-- old times, and is neither compressed while it comes in nor dropped as soon as it is there.
ALTER TABLE telemetry SET (
    timescaledb.enable_columnstore,
    timescaledb.segmentby = 'device_key',
    timescaledb.orderby = 'ts DESC'
);
CALL add_columnstore_policy('telemetry', created_before => INTERVAL '8 days');
-- add_retention_policy() accepts ages of this kind as well, but its job fails when it runs (seen in
-- 2.23.0, compare TimescaleDB's issue 9446), so the policy is an action of our own. Its age follows
-- the setting: see drop_partitions().
CREATE PROCEDURE drop_old_chunks(job_id integer, config jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM drop_chunks('telemetry', created_before => now() - (config ->> 'keep')::interval);
END $$;
SELECT add_job('drop_old_chunks', INTERVAL '1 day', config => '{"keep": "730 days"}');

-- No refresh policy: the worker refreshes exactly the minutes named in rollup_due and then removes
-- the marks (anxin/db/rollups.sql). A refresh by the clock would not know which marks it settled.
CREATE MATERIALIZED VIEW minute_rollup
WITH (timescaledb.continuous, timescaledb.materialized_only = true,
      timescaledb.create_group_indexes = false) AS
SELECT device_key, time_bucket(INTERVAL '1 minute', ts) AS bucket,
    count(hr)::integer AS hr_n, avg(hr)::double precision AS hr_mean, min(hr)::real AS hr_min, max(hr)::real AS hr_max,
    count(rr)::integer AS rr_n, avg(rr)::double precision AS rr_mean, min(rr)::real AS rr_min, max(rr)::real AS rr_max,
    count(spo2)::integer AS spo2_n, avg(spo2)::double precision AS spo2_mean, min(spo2)::real AS spo2_min, max(spo2)::real AS spo2_max,
    count(temp)::integer AS temp_n, avg(temp)::double precision AS temp_mean, min(temp)::real AS temp_min, max(temp)::real AS temp_max,
    count(sbp)::integer AS sbp_n, avg(sbp)::double precision AS sbp_mean, min(sbp)::real AS sbp_min, max(sbp)::real AS sbp_max,
    count(dbp)::integer AS dbp_n, avg(dbp)::double precision AS dbp_mean, min(dbp)::real AS dbp_min, max(dbp)::real AS dbp_max,
    count(glucose)::integer AS glucose_n, avg(glucose)::double precision AS glucose_mean, min(glucose)::real AS glucose_min, max(glucose)::real AS glucose_max,
    count(weight)::integer AS weight_n, avg(weight)::double precision AS weight_mean, min(weight)::real AS weight_min, max(weight)::real AS weight_max,
    count(steps)::integer AS steps_n, avg(steps)::double precision AS steps_mean, min(steps)::real AS steps_min, max(steps)::real AS steps_max,
    count(movement)::integer AS movement_n, avg(movement)::double precision AS movement_mean, min(movement)::real AS movement_min, max(movement)::real AS movement_max,
    count(battery)::integer AS battery_n, avg(battery)::double precision AS battery_mean, min(battery)::real AS battery_min, max(battery)::real AS battery_max,
    count(rssi)::integer AS rssi_n, avg(rssi)::double precision AS rssi_mean, min(rssi)::real AS rssi_min, max(rssi)::real AS rssi_max,
    count(room_temp)::integer AS room_temp_n, avg(room_temp)::double precision AS room_temp_mean, min(room_temp)::real AS room_temp_min, max(room_temp)::real AS room_temp_max,
    count(humidity)::integer AS humidity_n, avg(humidity)::double precision AS humidity_mean, min(humidity)::real AS humidity_min, max(humidity)::real AS humidity_max
FROM telemetry GROUP BY device_key, time_bucket(INTERVAL '1 minute', ts)
WITH NO DATA;
CREATE INDEX minute_rollup_device ON minute_rollup (device_key, bucket);

CREATE MATERIALIZED VIEW hour_rollup
WITH (timescaledb.continuous, timescaledb.materialized_only = true,
      timescaledb.create_group_indexes = false) AS
SELECT device_key, time_bucket(INTERVAL '1 hour', bucket) AS bucket,
    sum(hr_n)::integer AS hr_n, sum(hr_n * hr_mean) / nullif(sum(hr_n), 0) AS hr_mean, min(hr_min) AS hr_min, max(hr_max) AS hr_max,
    sum(rr_n)::integer AS rr_n, sum(rr_n * rr_mean) / nullif(sum(rr_n), 0) AS rr_mean, min(rr_min) AS rr_min, max(rr_max) AS rr_max,
    sum(spo2_n)::integer AS spo2_n, sum(spo2_n * spo2_mean) / nullif(sum(spo2_n), 0) AS spo2_mean, min(spo2_min) AS spo2_min, max(spo2_max) AS spo2_max,
    sum(temp_n)::integer AS temp_n, sum(temp_n * temp_mean) / nullif(sum(temp_n), 0) AS temp_mean, min(temp_min) AS temp_min, max(temp_max) AS temp_max,
    sum(sbp_n)::integer AS sbp_n, sum(sbp_n * sbp_mean) / nullif(sum(sbp_n), 0) AS sbp_mean, min(sbp_min) AS sbp_min, max(sbp_max) AS sbp_max,
    sum(dbp_n)::integer AS dbp_n, sum(dbp_n * dbp_mean) / nullif(sum(dbp_n), 0) AS dbp_mean, min(dbp_min) AS dbp_min, max(dbp_max) AS dbp_max,
    sum(glucose_n)::integer AS glucose_n, sum(glucose_n * glucose_mean) / nullif(sum(glucose_n), 0) AS glucose_mean, min(glucose_min) AS glucose_min, max(glucose_max) AS glucose_max,
    sum(weight_n)::integer AS weight_n, sum(weight_n * weight_mean) / nullif(sum(weight_n), 0) AS weight_mean, min(weight_min) AS weight_min, max(weight_max) AS weight_max,
    sum(steps_n)::integer AS steps_n, sum(steps_n * steps_mean) / nullif(sum(steps_n), 0) AS steps_mean, min(steps_min) AS steps_min, max(steps_max) AS steps_max,
    sum(movement_n)::integer AS movement_n, sum(movement_n * movement_mean) / nullif(sum(movement_n), 0) AS movement_mean, min(movement_min) AS movement_min, max(movement_max) AS movement_max,
    sum(battery_n)::integer AS battery_n, sum(battery_n * battery_mean) / nullif(sum(battery_n), 0) AS battery_mean, min(battery_min) AS battery_min, max(battery_max) AS battery_max,
    sum(rssi_n)::integer AS rssi_n, sum(rssi_n * rssi_mean) / nullif(sum(rssi_n), 0) AS rssi_mean, min(rssi_min) AS rssi_min, max(rssi_max) AS rssi_max,
    sum(room_temp_n)::integer AS room_temp_n, sum(room_temp_n * room_temp_mean) / nullif(sum(room_temp_n), 0) AS room_temp_mean, min(room_temp_min) AS room_temp_min, max(room_temp_max) AS room_temp_max,
    sum(humidity_n)::integer AS humidity_n, sum(humidity_n * humidity_mean) / nullif(sum(humidity_n), 0) AS humidity_mean, min(humidity_min) AS humidity_min, max(humidity_max) AS humidity_max
FROM minute_rollup GROUP BY device_key, time_bucket(INTERVAL '1 hour', bucket)
WITH NO DATA;
CREATE INDEX hour_rollup_device ON hour_rollup (device_key, bucket);

CREATE VIEW vitals_minute AS
SELECT r.device_key, r.bucket, m.metric, m.n, m.mean, m.low, m.high
FROM minute_rollup r CROSS JOIN LATERAL (VALUES
    ('hr', r.hr_n, r.hr_mean, r.hr_min, r.hr_max),
    ('rr', r.rr_n, r.rr_mean, r.rr_min, r.rr_max),
    ('spo2', r.spo2_n, r.spo2_mean, r.spo2_min, r.spo2_max),
    ('temp', r.temp_n, r.temp_mean, r.temp_min, r.temp_max),
    ('sbp', r.sbp_n, r.sbp_mean, r.sbp_min, r.sbp_max),
    ('dbp', r.dbp_n, r.dbp_mean, r.dbp_min, r.dbp_max),
    ('glucose', r.glucose_n, r.glucose_mean, r.glucose_min, r.glucose_max),
    ('weight', r.weight_n, r.weight_mean, r.weight_min, r.weight_max),
    ('steps', r.steps_n, r.steps_mean, r.steps_min, r.steps_max),
    ('movement', r.movement_n, r.movement_mean, r.movement_min, r.movement_max),
    ('battery', r.battery_n, r.battery_mean, r.battery_min, r.battery_max),
    ('rssi', r.rssi_n, r.rssi_mean, r.rssi_min, r.rssi_max),
    ('room_temp', r.room_temp_n, r.room_temp_mean, r.room_temp_min, r.room_temp_max),
    ('humidity', r.humidity_n, r.humidity_mean, r.humidity_min, r.humidity_max)
) AS m (metric, n, mean, low, high)
WHERE m.n > 0;

CREATE VIEW vitals_hour AS
SELECT r.device_key, r.bucket, m.metric, m.n, m.mean, m.low, m.high
FROM hour_rollup r CROSS JOIN LATERAL (VALUES
    ('hr', r.hr_n, r.hr_mean, r.hr_min, r.hr_max),
    ('rr', r.rr_n, r.rr_mean, r.rr_min, r.rr_max),
    ('spo2', r.spo2_n, r.spo2_mean, r.spo2_min, r.spo2_max),
    ('temp', r.temp_n, r.temp_mean, r.temp_min, r.temp_max),
    ('sbp', r.sbp_n, r.sbp_mean, r.sbp_min, r.sbp_max),
    ('dbp', r.dbp_n, r.dbp_mean, r.dbp_min, r.dbp_max),
    ('glucose', r.glucose_n, r.glucose_mean, r.glucose_min, r.glucose_max),
    ('weight', r.weight_n, r.weight_mean, r.weight_min, r.weight_max),
    ('steps', r.steps_n, r.steps_mean, r.steps_min, r.steps_max),
    ('movement', r.movement_n, r.movement_mean, r.movement_min, r.movement_max),
    ('battery', r.battery_n, r.battery_mean, r.battery_min, r.battery_max),
    ('rssi', r.rssi_n, r.rssi_mean, r.rssi_min, r.rssi_max),
    ('room_temp', r.room_temp_n, r.room_temp_mean, r.room_temp_min, r.room_temp_max),
    ('humidity', r.humidity_n, r.humidity_mean, r.humidity_min, r.humidity_max)
) AS m (metric, n, mean, low, high)
WHERE m.n > 0;

-- The same shape for single readings, so that one query serves raw values and rollups.
CREATE VIEW readings AS
SELECT t.device_key, t.ts, m.metric, m.value
FROM telemetry t CROSS JOIN LATERAL (VALUES
    ('hr', t.hr::double precision),
    ('rr', t.rr::double precision),
    ('spo2', t.spo2::double precision),
    ('temp', t.temp::double precision),
    ('sbp', t.sbp::double precision),
    ('dbp', t.dbp::double precision),
    ('glucose', t.glucose::double precision),
    ('weight', t.weight::double precision),
    ('steps', t.steps::double precision),
    ('movement', t.movement::double precision),
    ('battery', t.battery::double precision),
    ('rssi', t.rssi::double precision),
    ('room_temp', t.room_temp::double precision),
    ('humidity', t.humidity::double precision)
) AS m (metric, value)
WHERE m.value IS NOT NULL;

-- Chunks come by themselves.
CREATE FUNCTION add_partition(day timestamptz) RETURNS text LANGUAGE sql AS
$$ SELECT NULL::text WHERE day IS NOT NULL $$;

-- Chunks go by policy. This tells the policy what the setting says and drops nothing itself, so
-- the answer is 0. Whole days, so that it stays the same from one call to the next.
CREATE FUNCTION drop_partitions(horizon timestamptz) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    keep jsonb := jsonb_build_object(
        'keep', round(extract(epoch FROM now() - horizon) / 86400)::integer || ' days');
BEGIN
    PERFORM alter_job(job_id, config => keep)
    FROM timescaledb_information.jobs
    WHERE proc_name = 'drop_old_chunks' AND config <> keep;
    RETURN 0;
END $$;
