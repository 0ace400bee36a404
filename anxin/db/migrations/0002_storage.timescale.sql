-- Telemetry on TimescaleDB: hypertable, columnstore, continuous aggregates, policies.
-- Views and functions have the names and shapes of the plain form.

CREATE EXTENSION IF NOT EXISTS timescaledb;

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
SELECT create_hypertable('telemetry', by_range('ts', INTERVAL '1 day'));
ALTER TABLE telemetry SET (
    timescaledb.compress,
    timescaledb.compress_segmentby = 'device_key',
    timescaledb.compress_orderby = 'ts DESC'
);
SELECT add_compression_policy('telemetry', INTERVAL '8 days');

CREATE MATERIALIZED VIEW minute_rollup
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
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
CREATE MATERIALIZED VIEW hour_rollup
WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT device_key, time_bucket(INTERVAL '1 hour', ts) AS bucket,
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
FROM telemetry GROUP BY device_key, time_bucket(INTERVAL '1 hour', ts)
WITH NO DATA;
SELECT add_continuous_aggregate_policy('minute_rollup',
    start_offset => INTERVAL '8 days', end_offset => INTERVAL '5 minutes',
    schedule_interval => INTERVAL '1 minute');
SELECT add_continuous_aggregate_policy('hour_rollup',
    start_offset => INTERVAL '8 days', end_offset => INTERVAL '2 hours',
    schedule_interval => INTERVAL '10 minutes');
SELECT add_retention_policy('telemetry', INTERVAL '730 days');

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

-- Chunks come by themselves and go by policy.
CREATE FUNCTION add_partition(day timestamptz) RETURNS text LANGUAGE sql AS
$$ SELECT NULL::text WHERE day IS NOT NULL $$;
CREATE FUNCTION drop_partitions(horizon timestamptz) RETURNS integer LANGUAGE sql AS
$$ SELECT count(*)::integer FROM drop_chunks('telemetry', older_than => horizon) $$;
