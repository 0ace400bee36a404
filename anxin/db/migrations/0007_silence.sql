-- Who is heard and who is not: computed from stored times alone, so no restart changes the answer.

-- When any ingest was there to hear devices, one row per spell. Between two spells the platform was
-- deaf, and a device that was not heard then is not to blame.
CREATE TABLE listening (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    began_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    until_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    kept        boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
COMMENT ON COLUMN listening.kept IS
    'Before this spell only the database was away: what arrived was kept on the disk of ingest.';

-- Called by every ingest each few seconds.
CREATE FUNCTION note_listening(kept_ boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE listening SET until_at = greatest(until_at, clock_timestamp())
    WHERE id = (SELECT max(id) FROM listening)
      AND until_at > clock_timestamp() - interval '15 seconds';
    IF NOT FOUND THEN
        INSERT INTO listening (kept) VALUES (kept_);
    END IF;
END $$;

-- Those that reach into the last two days: no device is given longer.
CREATE VIEW deaf_spells AS
SELECT from_at, coalesce(next_at, clock_timestamp()) AS to_at, next_at IS NULL AS lasts,
       coalesce(kept, false) AS kept
FROM (SELECT until_at AS from_at, lead(began_at) OVER (ORDER BY id) AS next_at,
             lead(kept) OVER (ORDER BY id) AS kept
      FROM listening
      WHERE id >= coalesce((SELECT max(id) FROM listening
                            WHERE until_at < now() - interval '2 days'), 0)) AS spells
WHERE coalesce(next_at, clock_timestamp()) > from_at + interval '15 seconds';

-- How much of the time since a moment does not count against a device: the platform was deaf, or
-- the devices were on their way back.
CREATE FUNCTION deaf_since(moment timestamptz) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(least(to_at + interval '60 seconds', now()) - greatest(from_at, moment)),
                    interval '0')
    FROM deaf_spells WHERE to_at + interval '60 seconds' > moment
$$;

-- How long a device of this kind may be quiet. `usual` is its learned interval in seconds or NULL;
-- `connects` tells that its connection is seen, which is kept alive each minute or oftener.
CREATE FUNCTION patience_seconds(kind text, usual real, connects boolean)
RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN kind IN ('bed_sensor', 'radar', 'gateway') THEN 180
        WHEN kind = 'wearable' THEN 900
        WHEN kind = 'call_button' AND usual IS NULL AND connects THEN 180
        WHEN kind = 'call_button' THEN least(90000, greatest(180, 3 * coalesce(usual, 90000)))
        ELSE least(90000, greatest(1800, 2 * coalesce(usual, 90000)))
    END::integer
$$;

-- Every device that is not revoked, and how it is being heard. Three clocks run: the connection and
-- the heartbeat (any sign of life), and for what measures all the time the measurement.
CREATE VIEW device_monitoring AS
SELECT device_key, device_id, kind, resident_id, place_id, care_level, gateway_key, subject,
       patience, heard_at, measured_at, quiet_since, never_heard,
       CASE
           WHEN NOT deployed THEN 'undeployed'
           WHEN lost THEN 'network-error'
           WHEN blind THEN 'sensor-error'
           WHEN presence = 'absent' THEN 'absent'
           ELSE 'present'
       END AS state,
       CASE WHEN lost AND never_heard THEN 'never heard'
            WHEN lost AND online IS FALSE THEN 'connection'
            WHEN lost THEN 'heartbeat'
            WHEN blind THEN 'measurement' END AS clock
FROM (
    SELECT d.*, never_heard, quiet_since,
           deployed AND CASE WHEN quiet_since >= now() - allowed THEN false
                WHEN quiet_since >= deaf_until THEN true
                ELSE quiet_since < now() - allowed - deaf_since(quiet_since) END AS lost,
           deployed AND measures AND NOT never_heard
               AND CASE WHEN blind_since >= now() - allowed THEN false
                   WHEN blind_since >= deaf_until THEN true
                   ELSE blind_since < now() - allowed - deaf_since(blind_since) END AS blind
    FROM (
        SELECT d.key AS device_key, d.id AS device_id, d.kind, d.gateway_key, r.id AS resident_id,
               coalesce(r.place_id, d.place_id) AS place_id,
               coalesce(r.care_level, 0) AS care_level,
               CASE WHEN d.kind = 'gateway' THEN 'd' || d.key
                    WHEN r.id IS NOT NULL THEN 'r' || r.id
                    WHEN d.place_id IS NOT NULL THEN 'p' || d.place_id
                    ELSE 'd' || d.key END AS subject,
               patience_seconds(d.kind, s.usual_interval_seconds, s.online IS NOT NULL) AS patience,
               s.online, greatest(s.heard_at, l.received_at) AS heard_at,
               l.received_at AS measured_at, l.metrics -> 'presence' ->> 0 AS presence,
               d.kind IN ('bed_sensor', 'radar', 'wearable') AS measures,
               d.kind IN ('cuff', 'thermometer', 'scale', 'oximeter') AS waits_to_be_used,
               -- Without a resident only what is built in counts, once it was heard from its place.
               a.device_key IS NOT NULL
                   OR (d.kind IN ('gateway', 'smoke', 'door', 'call_button')
                       AND d.place_id IS NOT NULL
                       AND (s.heard_at IS NOT NULL OR l.received_at IS NOT NULL)) AS deployed,
               greatest(lower(a.during), timestamptz 'epoch') AS deployed_at
        FROM devices d
        LEFT JOIN assignments a ON a.device_key = d.key AND a.during @> now()
        LEFT JOIN residents r ON r.id = a.resident_id
        LEFT JOIN device_states s ON s.device_key = d.key
        LEFT JOIN latest l ON l.device_key = d.key
        WHERE d.revoked_at IS NULL
    ) AS d
    CROSS JOIN LATERAL (
        -- What a device sent for somebody else before is no sign of life here.
        SELECT coalesce(heard_at <= deployed_at, true) AS never_heard,
               greatest(heard_at, deployed_at) AS quiet_since,
               greatest(measured_at, deployed_at) AS blind_since
    ) AS clocks
    CROSS JOIN LATERAL (
        SELECT CASE WHEN NOT never_heard THEN patience
                    WHEN waits_to_be_used THEN 90000
                    ELSE 600 END * interval '1 second' AS allowed
    ) AS limits
    -- Only what was quiet before the last of our own spells needs a closer look.
    CROSS JOIN (SELECT coalesce(max(to_at) + interval '60 seconds', '-infinity') AS deaf_until
                FROM deaf_spells) AS ours
) AS d;

-- Whose gateway or place is missed, or was until lately, is looked up by subject.
CREATE INDEX alarms_subject ON alarms (subject, kind, id);
