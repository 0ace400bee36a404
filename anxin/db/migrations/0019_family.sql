-- What a relative is told and may choose: visits, the station's telephone, who did what about an
-- alarm, in bed from when to when, what oneself was allowed to see, and hours without what can wait.

INSERT INTO role_rights (role, right_)
SELECT unnest(string_to_array(roles, ' ')), right_ FROM (VALUES
    ('visits.read', 'admin supervisor nurse family integrator'),
    ('visits.write', 'admin supervisor nurse'),
    ('quiet.choose', 'family')
) AS bundles (right_, roles);

-- Of stations: the telephone of a home is its resident's own, and belongs among what is sealed.
ALTER TABLE places ADD COLUMN phone text CHECK (phone ~ '^\+?[0-9][0-9 -]{2,24}$'),
    ADD CHECK (phone IS NULL OR kind IN ('district', 'town', 'village', 'facility'));
COMMENT ON COLUMN places.phone IS 'Where relatives of who lives here, or below, may call.';

CREATE TABLE visits (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resident_id bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('visit', 'meal', 'bath', 'medical', 'cleaning',
                                              'rehabilitation', 'errand', 'other')),
    at          timestamptz NOT NULL,
    minutes     smallint CHECK (minutes BETWEEN 1 AND 1440),
    note        text NOT NULL DEFAULT '',
    recorded_by bigint REFERENCES users ON DELETE SET NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN visits.at IS 'When it began; in the future: when it is planned.';
COMMENT ON COLUMN visits.note IS 'The family reads it.';
CREATE INDEX visits_resident ON visits (resident_id, at DESC, id DESC);

-- Local times of the day, in the time zone of the platform.
CREATE TABLE quiet_hours (
    user_id     bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    from_       time,
    until_      time,
    only_urgent boolean NOT NULL DEFAULT false,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    CHECK ((from_ IS NULL) = (until_ IS NULL) AND from_ <> until_)
);
COMMENT ON COLUMN quiet_hours.only_urgent IS 'What can wait is never sent to this person.';

-- Whether a notice that can wait has to: only a relative is ever spared one.
CREATE FUNCTION is_quiet(user_ bigint, local_ time) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM quiet_hours q JOIN users u ON u.id = q.user_id AND u.role = 'family'
        WHERE q.user_id = user_
          AND CASE WHEN q.from_ < q.until_ THEN local_ >= q.from_ AND local_ < q.until_
                   ELSE local_ >= q.from_ OR local_ < q.until_ END)
$$;

-- The nearest place on the way up from a resident's bed that can be called.
CREATE FUNCTION station_of(resident_ bigint) RETURNS TABLE (name text, phone text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF acting_may('residents.read') AND sees_resident(resident_, 'status') THEN
        RETURN QUERY
        SELECT p.name, p.phone
        FROM residents r JOIN places home ON home.id = r.place_id
        JOIN places p ON p.phone IS NOT NULL AND starts_with(home.path, p.path)
        WHERE r.id = resident_ ORDER BY length(p.path) DESC LIMIT 1;
    END IF;
END $$;

-- What was done about an alarm, by whom as a role: no names, and nothing that was written down.
CREATE FUNCTION answers_to(alarm_ bigint) RETURNS TABLE (at timestamptz, change text, role text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF acting_may('alarms.read') AND sees_alarm(alarm_) THEN
        RETURN QUERY
        SELECT t.at, t.change, u.role
        FROM timeline t LEFT JOIN users u ON u.id = t.actor_id
        WHERE t.alarm_id = alarm_
          AND t.change IN ('raised', 'acknowledged', 'on_site', 'recovered', 'closed',
                           'lease_expired')
        ORDER BY t.id;
    END IF;
END $$;

-- Each night of a resident as a bed sensor saw it. A night is from 18:00 to 12:00 of local time and
-- named after the day on which it ends. A minute counts as in bed when any reading in it says so; a
-- stay of under ten minutes is no going to bed, and an edge of the night no getting up. A night of
-- which less than half was seen is none.
CREATE FUNCTION nights_of(resident_ bigint, first_ date, last_ date, until_ timestamptz, zone_ text,
                          most_readings_ integer)
RETURNS TABLE (night date, in_bed_at timestamptz, up_at timestamptz, minutes integer, exits integer,
               seen integer, readings bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF NOT sees_vitals(resident_) THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH windows AS MATERIALIZED (
        SELECT day::date AS night,
               (day - interval '6 hours') AT TIME ZONE zone_ AS begins,
               least((day + interval '12 hours') AT TIME ZONE zone_, until_) AS ends
        FROM generate_series(first_::timestamp, last_::timestamp, interval '1 day') AS day
    ), taken AS MATERIALIZED (
        SELECT w.night, t.ts, t.presence
        FROM windows w
        JOIN assignments s ON s.resident_id = resident_ AND s.during && tstzrange(w.begins, w.ends)
        JOIN telemetry t ON t.device_key = s.device_key AND s.during @> t.ts
             AND t.ts >= w.begins AND t.ts < w.ends
        WHERE w.begins < w.ends AND t.presence IN (1, 2)
        LIMIT most_readings_
    ), by_minute AS (
        SELECT night, date_trunc('minute', ts) AS minute, bool_or(presence = 2) AS here
        FROM taken GROUP BY 1, 2
    ), turned AS (
        SELECT *, count(*) FILTER (WHERE turns) OVER (PARTITION BY night ORDER BY minute) AS stay
        FROM (SELECT *, here IS DISTINCT FROM lag(here) OVER (PARTITION BY night ORDER BY minute)
                        AS turns
              FROM by_minute) AS x
    ), stays AS (
        SELECT night, here, min(minute) AS since, max(minute) + interval '1 minute' AS until,
               count(*)::integer AS minutes
        FROM turned GROUP BY night, stay, here
    ), beds AS (
        SELECT night, min(since) AS since, max(until) AS until, count(*)::integer AS stays
        FROM stays WHERE here AND minutes >= 10 GROUP BY night
    )
    SELECT w.night,
           CASE WHEN b.since > w.begins + interval '2 minutes' THEN b.since END,
           CASE WHEN b.until < w.ends - interval '2 minutes' THEN b.until END,
           (SELECT coalesce(sum(s.minutes), 0)::integer FROM stays s
            WHERE s.night = w.night AND s.here),
           greatest(coalesce(b.stays, 0) - 1, 0),
           (SELECT sum(s.minutes)::integer FROM stays s WHERE s.night = w.night),
           (SELECT count(*) FROM taken)
    FROM windows w LEFT JOIN beds b ON b.night = w.night
    WHERE 2 * (SELECT coalesce(sum(s.minutes), 0) FROM stays s WHERE s.night = w.night)
          >= extract(epoch FROM w.ends - w.begins) / 60
    ORDER BY w.night;
END $$;

GRANT CREATE ON SCHEMA public TO anxin_gate;
ALTER TABLE visits OWNER TO anxin_owner;
ALTER TABLE quiet_hours OWNER TO anxin_owner;
ALTER FUNCTION is_quiet(bigint, time) OWNER TO anxin_owner;
ALTER FUNCTION station_of(bigint) OWNER TO anxin_gate;
ALTER FUNCTION answers_to(bigint) OWNER TO anxin_gate;
ALTER FUNCTION nights_of(bigint, date, date, timestamptz, text, integer) OWNER TO anxin_gate;
REVOKE CREATE ON SCHEMA public FROM anxin_gate;
REVOKE ALL ON FUNCTION is_quiet(bigint, time), station_of(bigint), answers_to(bigint),
    nights_of(bigint, date, date, timestamptz, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION station_of(bigint), answers_to(bigint),
    nights_of(bigint, date, date, timestamptz, text, integer) TO anxin_api;
GRANT EXECUTE ON FUNCTION is_quiet(bigint, time) TO anxin_worker;

ALTER TABLE visits ENABLE ROW LEVEL SECURITY;
ALTER TABLE visits FORCE ROW LEVEL SECURITY;
ALTER TABLE quiet_hours ENABLE ROW LEVEL SECURITY;
ALTER TABLE quiet_hours FORCE ROW LEVEL SECURITY;

GRANT UPDATE (name, phone) ON places TO anxin_api;
CREATE POLICY api_update_phone ON places FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('places.write')) AND starts_with(path, (SELECT acting_path())));

GRANT SELECT, INSERT (resident_id, kind, at, minutes, note, recorded_by), DELETE ON visits
    TO anxin_api;
CREATE POLICY api_select ON visits FOR SELECT TO anxin_api USING (
    (SELECT acting_may('visits.read')) AND sees_resident(resident_id, 'events'));
CREATE POLICY api_insert ON visits FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('visits.write')) AND sees_resident(resident_id, 'events')
    AND recorded_by = (SELECT acting_user()));
CREATE POLICY api_delete ON visits FOR DELETE TO anxin_api USING (
    (SELECT acting_may('visits.write')) AND sees_resident(resident_id, 'events'));

GRANT SELECT, INSERT, UPDATE (from_, until_, only_urgent, changed_at) ON quiet_hours TO anxin_api;
CREATE POLICY api_all ON quiet_hours FOR ALL TO anxin_api USING (
    (SELECT acting_may('quiet.choose')) AND user_id = (SELECT acting_user()));
GRANT SELECT ON quiet_hours TO anxin_worker;
CREATE POLICY anxin_worker_select ON quiet_hours FOR SELECT TO anxin_worker USING (true);

-- What a relative may see is its own business to know.
CREATE POLICY api_own ON consents FOR SELECT TO anxin_api USING (
    user_id = (SELECT acting_user()) AND (SELECT acting_role()) = 'family');

CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON visits
    FOR EACH ROW EXECUTE FUNCTION audit_change('visit', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON quiet_hours
    FOR EACH ROW EXECUTE FUNCTION audit_change('quiet_hours', 'user_id');
