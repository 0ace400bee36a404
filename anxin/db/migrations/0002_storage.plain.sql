-- Telemetry on plain PostgreSQL: range partitions by week, rollups kept by the worker.

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
) PARTITION BY RANGE (ts);
-- Readings of devices whose clock is far off, and of recordings, live in the default partition.
CREATE TABLE telemetry_other PARTITION OF telemetry DEFAULT;

-- Makes the partition of the week that holds `day`, taking over what the default one held of it.
CREATE FUNCTION add_partition(day timestamptz) RETURNS text LANGUAGE plpgsql
SET timezone = 'UTC' AS $$
DECLARE
    start_ timestamptz := date_trunc('week', day);
    end_ timestamptz := date_trunc('week', day) + interval '7 days';
    name_ text := 'telemetry_' || to_char(start_, 'IYYY"w"IW');
BEGIN
    IF to_regclass(name_) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    -- Readers and writers wait for this short moment rather than see a gap.
    LOCK TABLE telemetry IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE telemetry INCLUDING ALL)', name_);
    EXECUTE format('WITH moved AS (DELETE FROM telemetry_other WHERE ts >= %L AND ts < %L RETURNING *)'
                   ' INSERT INTO %I SELECT * FROM moved', start_, end_, name_);
    EXECUTE format('ALTER TABLE telemetry ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   name_, start_, end_);
    RETURN name_;
END $$;
SELECT add_partition(now() + n * interval '7 days') FROM generate_series(-1, 2) AS n;

-- Drops whole weeks, and deletes single rows of the default partition, older than `horizon`.
-- Rows there are judged by when they came: a recording keeps its old times.
CREATE FUNCTION drop_partitions(horizon timestamptz) RETURNS integer LANGUAGE plpgsql
SET timezone = 'UTC' AS $$
DECLARE
    name_ text;
    dropped integer := 0;
BEGIN
    FOR name_ IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'telemetry'::regclass AND c.relname <> 'telemetry_other'
          AND to_date(substr(c.relname, 11), 'IYYY"w"IW') + 7 <= horizon::date
    LOOP
        EXECUTE format('DROP TABLE %I', name_);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM telemetry_other WHERE received_at < horizon;
    RETURN dropped;
END $$;

CREATE TABLE minute_rollup (
    device_key  integer NOT NULL,
    bucket      timestamptz NOT NULL,
    hr_n integer, hr_mean double precision, hr_min real, hr_max real,
    rr_n integer, rr_mean double precision, rr_min real, rr_max real,
    spo2_n integer, spo2_mean double precision, spo2_min real, spo2_max real,
    temp_n integer, temp_mean double precision, temp_min real, temp_max real,
    sbp_n integer, sbp_mean double precision, sbp_min real, sbp_max real,
    dbp_n integer, dbp_mean double precision, dbp_min real, dbp_max real,
    glucose_n integer, glucose_mean double precision, glucose_min real, glucose_max real,
    weight_n integer, weight_mean double precision, weight_min real, weight_max real,
    steps_n integer, steps_mean double precision, steps_min real, steps_max real,
    movement_n integer, movement_mean double precision, movement_min real, movement_max real,
    battery_n integer, battery_mean double precision, battery_min real, battery_max real,
    rssi_n integer, rssi_mean double precision, rssi_min real, rssi_max real,
    room_temp_n integer, room_temp_mean double precision, room_temp_min real, room_temp_max real,
    humidity_n integer, humidity_mean double precision, humidity_min real, humidity_max real,
    PRIMARY KEY (device_key, bucket)
);

CREATE TABLE hour_rollup (
    device_key  integer NOT NULL,
    bucket      timestamptz NOT NULL,
    hr_n integer, hr_mean double precision, hr_min real, hr_max real,
    rr_n integer, rr_mean double precision, rr_min real, rr_max real,
    spo2_n integer, spo2_mean double precision, spo2_min real, spo2_max real,
    temp_n integer, temp_mean double precision, temp_min real, temp_max real,
    sbp_n integer, sbp_mean double precision, sbp_min real, sbp_max real,
    dbp_n integer, dbp_mean double precision, dbp_min real, dbp_max real,
    glucose_n integer, glucose_mean double precision, glucose_min real, glucose_max real,
    weight_n integer, weight_mean double precision, weight_min real, weight_max real,
    steps_n integer, steps_mean double precision, steps_min real, steps_max real,
    movement_n integer, movement_mean double precision, movement_min real, movement_max real,
    battery_n integer, battery_mean double precision, battery_min real, battery_max real,
    rssi_n integer, rssi_mean double precision, rssi_min real, rssi_max real,
    room_temp_n integer, room_temp_mean double precision, room_temp_min real, room_temp_max real,
    humidity_n integer, humidity_mean double precision, humidity_min real, humidity_max real,
    PRIMARY KEY (device_key, bucket)
);

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

-- Rolls up the minutes that were marked before `settled`, and the hours they lie in.
CREATE FUNCTION roll_up(settled timestamptz, most integer) RETURNS integer LANGUAGE plpgsql
SET timezone = 'UTC' AS $$
DECLARE rolled integer;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS rolling (
        device_key integer, minute timestamptz, PRIMARY KEY (device_key, minute)
    ) ON COMMIT DELETE ROWS;
    DELETE FROM rolling;
    -- Two workers share the work: each takes marks that the other has not locked.
    WITH taken AS (
        DELETE FROM rollup_due WHERE id IN (
            SELECT id FROM rollup_due WHERE marked_at < settled
            ORDER BY id LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING device_key, minute
    )
    INSERT INTO rolling SELECT DISTINCT device_key, minute FROM taken;
    GET DIAGNOSTICS rolled = ROW_COUNT;
    ANALYZE rolling;
    INSERT INTO minute_rollup
    -- LATERAL: each minute by the index, also while the planner has no statistics of the readings.
    SELECT r.device_key, r.minute, m.*
    FROM rolling r CROSS JOIN LATERAL (
        SELECT
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
        FROM telemetry t
        WHERE t.device_key = r.device_key
          AND t.ts >= r.minute AND t.ts < r.minute + interval '1 minute'
        HAVING count(*) > 0
    ) AS m
    ORDER BY r.device_key, r.minute
    ON CONFLICT (device_key, bucket) DO UPDATE SET
        hr_n = excluded.hr_n, hr_mean = excluded.hr_mean, hr_min = excluded.hr_min, hr_max = excluded.hr_max,
        rr_n = excluded.rr_n, rr_mean = excluded.rr_mean, rr_min = excluded.rr_min, rr_max = excluded.rr_max,
        spo2_n = excluded.spo2_n, spo2_mean = excluded.spo2_mean, spo2_min = excluded.spo2_min, spo2_max = excluded.spo2_max,
        temp_n = excluded.temp_n, temp_mean = excluded.temp_mean, temp_min = excluded.temp_min, temp_max = excluded.temp_max,
        sbp_n = excluded.sbp_n, sbp_mean = excluded.sbp_mean, sbp_min = excluded.sbp_min, sbp_max = excluded.sbp_max,
        dbp_n = excluded.dbp_n, dbp_mean = excluded.dbp_mean, dbp_min = excluded.dbp_min, dbp_max = excluded.dbp_max,
        glucose_n = excluded.glucose_n, glucose_mean = excluded.glucose_mean, glucose_min = excluded.glucose_min, glucose_max = excluded.glucose_max,
        weight_n = excluded.weight_n, weight_mean = excluded.weight_mean, weight_min = excluded.weight_min, weight_max = excluded.weight_max,
        steps_n = excluded.steps_n, steps_mean = excluded.steps_mean, steps_min = excluded.steps_min, steps_max = excluded.steps_max,
        movement_n = excluded.movement_n, movement_mean = excluded.movement_mean, movement_min = excluded.movement_min, movement_max = excluded.movement_max,
        battery_n = excluded.battery_n, battery_mean = excluded.battery_mean, battery_min = excluded.battery_min, battery_max = excluded.battery_max,
        rssi_n = excluded.rssi_n, rssi_mean = excluded.rssi_mean, rssi_min = excluded.rssi_min, rssi_max = excluded.rssi_max,
        room_temp_n = excluded.room_temp_n, room_temp_mean = excluded.room_temp_mean, room_temp_min = excluded.room_temp_min, room_temp_max = excluded.room_temp_max,
        humidity_n = excluded.humidity_n, humidity_mean = excluded.humidity_mean, humidity_min = excluded.humidity_min, humidity_max = excluded.humidity_max;
    INSERT INTO hour_rollup
    SELECT h.device_key, h.hour,
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
    FROM (SELECT DISTINCT device_key, date_trunc('hour', minute) AS hour FROM rolling) h
    JOIN minute_rollup m ON m.device_key = h.device_key
        AND m.bucket >= h.hour AND m.bucket < h.hour + interval '1 hour'
    GROUP BY h.device_key, h.hour
    ORDER BY h.device_key, h.hour
    ON CONFLICT (device_key, bucket) DO UPDATE SET
        hr_n = excluded.hr_n, hr_mean = excluded.hr_mean, hr_min = excluded.hr_min, hr_max = excluded.hr_max,
        rr_n = excluded.rr_n, rr_mean = excluded.rr_mean, rr_min = excluded.rr_min, rr_max = excluded.rr_max,
        spo2_n = excluded.spo2_n, spo2_mean = excluded.spo2_mean, spo2_min = excluded.spo2_min, spo2_max = excluded.spo2_max,
        temp_n = excluded.temp_n, temp_mean = excluded.temp_mean, temp_min = excluded.temp_min, temp_max = excluded.temp_max,
        sbp_n = excluded.sbp_n, sbp_mean = excluded.sbp_mean, sbp_min = excluded.sbp_min, sbp_max = excluded.sbp_max,
        dbp_n = excluded.dbp_n, dbp_mean = excluded.dbp_mean, dbp_min = excluded.dbp_min, dbp_max = excluded.dbp_max,
        glucose_n = excluded.glucose_n, glucose_mean = excluded.glucose_mean, glucose_min = excluded.glucose_min, glucose_max = excluded.glucose_max,
        weight_n = excluded.weight_n, weight_mean = excluded.weight_mean, weight_min = excluded.weight_min, weight_max = excluded.weight_max,
        steps_n = excluded.steps_n, steps_mean = excluded.steps_mean, steps_min = excluded.steps_min, steps_max = excluded.steps_max,
        movement_n = excluded.movement_n, movement_mean = excluded.movement_mean, movement_min = excluded.movement_min, movement_max = excluded.movement_max,
        battery_n = excluded.battery_n, battery_mean = excluded.battery_mean, battery_min = excluded.battery_min, battery_max = excluded.battery_max,
        rssi_n = excluded.rssi_n, rssi_mean = excluded.rssi_mean, rssi_min = excluded.rssi_min, rssi_max = excluded.rssi_max,
        room_temp_n = excluded.room_temp_n, room_temp_mean = excluded.room_temp_mean, room_temp_min = excluded.room_temp_min, room_temp_max = excluded.room_temp_max,
        humidity_n = excluded.humidity_n, humidity_mean = excluded.humidity_mean, humidity_min = excluded.humidity_min, humidity_max = excluded.humidity_max;
    RETURN rolled;
END $$;
