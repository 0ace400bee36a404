-- Whose data this is: identities that only keys open, consents, erasure, and how long what is kept.

INSERT INTO role_rights (role, right_)
SELECT role, right_ FROM (VALUES
    ('admin', 'people.read'), ('supervisor', 'people.read'), ('nurse', 'people.read'),
    ('admin', 'people.write'), ('supervisor', 'people.write'),
    ('admin', 'people.identify'), ('supervisor', 'people.identify')
) AS bundle (role, right_)
ON CONFLICT DO NOTHING;

-- Each person's own key, wrapped by a master key that the database never sees. Without this row
-- nothing opens that it sealed, in no copy of the rows.
CREATE TABLE person_keys (
    resident_id bigint PRIMARY KEY REFERENCES residents ON DELETE CASCADE,
    id          uuid NOT NULL UNIQUE,
    master_id   text NOT NULL,
    index_id    text NOT NULL,
    wrapped     bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    rewrapped_at timestamptz
);
COMMENT ON COLUMN person_keys.master_id IS 'Which key of the file of data keys wraps this one.';
COMMENT ON COLUMN person_keys.index_id IS 'Which key the blind indexes of this person were made with.';

-- Sealed by the person's key (anxin/seal.py); the index finds an equal value and tells nothing else.
CREATE TABLE identities (
    resident_id bigint PRIMARY KEY REFERENCES residents ON DELETE CASCADE,
    id_card     bytea,
    id_card_index bytea,
    phone       bytea,
    phone_index bytea,
    changed_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX identities_id_card ON identities (id_card_index) WHERE id_card_index IS NOT NULL;
CREATE INDEX identities_phone ON identities (phone_index) WHERE phone_index IS NOT NULL;

CREATE TABLE relatives (
    id          uuid PRIMARY KEY,
    resident_id bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    relation    text NOT NULL CHECK (relation <> ''),
    guardian    boolean NOT NULL DEFAULT false,
    name        bytea NOT NULL,
    phone       bytea,
    phone_index bytea,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX relatives_resident ON relatives (resident_id);
CREATE INDEX relatives_phone ON relatives (phone_index) WHERE phone_index IS NOT NULL;

-- What the elder or the guardian allows, to whom, until when. A line is written once; only its
-- withdrawal is added to it.
CREATE TABLE consents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resident_id bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    purpose     text NOT NULL CHECK (purpose IN ('family', 'care', 'research')),
    user_id     bigint REFERENCES users ON DELETE CASCADE,
    scopes      text[] NOT NULL CHECK (scopes <> '{}' AND scopes <@
                    ARRAY['status', 'vitals', 'alarms', 'events', 'location', 'video']),
    given_by    text NOT NULL CHECK (given_by IN ('elder', 'guardian', 'unstated')),
    relation    text CHECK (relation <> ''),
    how         text NOT NULL CHECK (how IN ('paper', 'in_person', 'app', 'unstated')),
    given_at    timestamptz NOT NULL DEFAULT now(),
    until_at    timestamptz CHECK (until_at > given_at),
    withdrawn_at timestamptz,
    withdrawn_by bigint REFERENCES users ON DELETE SET NULL,
    recorded_by bigint REFERENCES users ON DELETE SET NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((purpose = 'family') = (user_id IS NOT NULL)),
    CHECK ((given_by = 'guardian') = (relation IS NOT NULL))
);
COMMENT ON COLUMN consents.user_id IS 'The relative whom it lets see.';
COMMENT ON COLUMN consents.relation IS 'What the guardian is to the elder.';
CREATE INDEX consents_resident ON consents (resident_id, id);
CREATE INDEX consents_user ON consents (user_id, resident_id);

CREATE FUNCTION consent_is_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    added text[] := ARRAY['withdrawn_at', 'withdrawn_by', 'recorded_by'];
BEGIN
    IF to_jsonb(NEW) - added <> to_jsonb(OLD) - added
       OR (OLD.withdrawn_at IS NOT NULL AND NEW.withdrawn_at IS DISTINCT FROM OLD.withdrawn_at)
       -- Who wrote it stays, unless that account goes.
       OR (NEW.recorded_by IS DISTINCT FROM OLD.recorded_by AND NEW.recorded_by IS NOT NULL)
       OR (OLD.withdrawn_by IS NOT NULL AND NEW.withdrawn_by IS DISTINCT FROM OLD.withdrawn_by
           AND NEW.withdrawn_by IS NOT NULL) THEN
        RAISE EXCEPTION 'A consent is history: it can only be withdrawn, once.'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER consent_is_history BEFORE UPDATE ON consents
    FOR EACH ROW EXECUTE FUNCTION consent_is_history();

-- family_links follows from the consents in force. Each scope has its own end, so that one that
-- runs out closes by itself at that moment, whatever else was allowed.
ALTER TABLE family_links ADD COLUMN ends timestamptz[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN family_links.ends IS 'Until when each of the scopes holds, in their order; NULL: until withdrawn.';

CREATE FUNCTION scopes_in_force(scopes text[], ends timestamptz[])
RETURNS text[] LANGUAGE sql STABLE SET search_path = pg_catalog, public AS $$
    SELECT coalesce(array_agg(scope ORDER BY scope), '{}')
    FROM unnest(scopes, ends) AS granted (scope, until_at)
    WHERE scope IS NOT NULL AND coalesce(until_at > now(), true)
$$;

CREATE FUNCTION follow_consent() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    user_ bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    resident_ bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.resident_id ELSE NEW.resident_id END;
    granted text[];
    ends_ timestamptz[];
BEGIN
    IF user_ IS NULL THEN
        RETURN NULL;
    END IF;
    -- Two that change consents of the same pair take turns, so the later one sees the earlier.
    PERFORM pg_advisory_xact_lock(4155024, hashtext(user_ || ':' || resident_));
    SELECT array_agg(scope ORDER BY scope), array_agg(until_at ORDER BY scope)
    INTO granted, ends_
    FROM (
        SELECT scope, nullif(max(coalesce(c.until_at, 'infinity')), 'infinity') AS until_at
        FROM consents c CROSS JOIN unnest(c.scopes) AS scope
        WHERE c.user_id = user_ AND c.resident_id = resident_ AND c.purpose = 'family'
          AND c.withdrawn_at IS NULL AND coalesce(c.until_at > now(), true)
        GROUP BY scope
    ) AS each;
    IF granted IS NULL THEN
        DELETE FROM family_links WHERE user_id = user_ AND resident_id = resident_;
    ELSE
        INSERT INTO family_links (user_id, resident_id, scopes, ends)
        VALUES (user_, resident_, granted, ends_)
        ON CONFLICT (user_id, resident_id) DO UPDATE
            SET scopes = excluded.scopes, ends = excluded.ends;
    END IF;
    RETURN NULL;
END $$;

-- What was allowed before there were records of it.
INSERT INTO consents (resident_id, purpose, user_id, scopes, given_by, how, given_at)
SELECT resident_id, 'family', user_id, scopes, 'unstated', 'unstated', created_at
FROM family_links WHERE scopes <> '{}';
CREATE TRIGGER follow_consent AFTER INSERT OR UPDATE OR DELETE ON consents
    FOR EACH ROW EXECUTE FUNCTION follow_consent();

-- What is left of somebody who was erased: that it was done, by whose decision, and how much went.
CREATE TABLE erasures (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resident_id bigint NOT NULL,
    place_id    bigint REFERENCES places ON DELETE SET NULL,
    requested_by bigint REFERENCES users ON DELETE SET NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    approved_by bigint REFERENCES users ON DELETE SET NULL,
    approved_at timestamptz,
    refused_at  timestamptz,
    began_at    timestamptz,
    gone_at     timestamptz,
    finished_at timestamptz,
    swept       jsonb NOT NULL DEFAULT '{}',
    CHECK (approved_by <> requested_by),
    CHECK (approved_at IS NULL OR refused_at IS NULL),
    CHECK (began_at IS NULL OR approved_at IS NOT NULL)
);
COMMENT ON COLUMN erasures.resident_id IS 'A number that leads nowhere any more, and is never given again.';
COMMENT ON COLUMN erasures.began_at IS 'When devices and consents were taken away; the rows go a little later.';
COMMENT ON COLUMN erasures.swept IS 'How many rows went, by table.';
CREATE UNIQUE INDEX erasures_one_at_a_time ON erasures (resident_id) WHERE refused_at IS NULL;

-- Which readings are those of an erased person: they go in slices, and so does what a device or a
-- spool hands in later.
CREATE TABLE erased_spans (
    erasure_id  bigint NOT NULL REFERENCES erasures ON DELETE CASCADE,
    device_key  integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    during      tstzrange NOT NULL,
    PRIMARY KEY (erasure_id, device_key, during)
);

-- The first step: nobody is monitored any more, screens learn that their alarms are over, services
-- stop to write about this person. Returns whether there was anything to begin.
CREATE FUNCTION begin_erasure(erasure_ bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    resident_ bigint;
    account text;
    a alarms;
BEGIN
    UPDATE erasures SET began_at = clock_timestamp()
    WHERE id = erasure_ AND approved_at IS NOT NULL AND began_at IS NULL
    RETURNING resident_id INTO resident_;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO erased_spans (erasure_id, device_key, during)
    SELECT erasure_, device_key, tstzrange(lower(during), least(upper(during), now()))
    FROM assignments
    WHERE resident_id = resident_ AND coalesce(lower(during) < now(), true);
    UPDATE devices SET name = ''
    WHERE key IN (SELECT device_key FROM assignments WHERE resident_id = resident_) AND name <> '';
    DELETE FROM assignments WHERE resident_id = resident_;
    DELETE FROM person_keys WHERE resident_id = resident_;
    -- Relatives' accounts that never saw anybody else have no purpose any more.
    FOR account IN
        DELETE FROM users u
        WHERE u.role = 'family'
          AND EXISTS (SELECT 1 FROM consents c
                      WHERE c.user_id = u.id AND c.resident_id = resident_)
          AND NOT EXISTS (SELECT 1 FROM consents c
                          WHERE c.user_id = u.id AND c.resident_id <> resident_)
          AND NOT EXISTS (SELECT 1 FROM family_links f
                          WHERE f.user_id = u.id AND f.resident_id <> resident_)
        RETURNING u.username
    LOOP
        DELETE FROM login_attempts l WHERE l.username = lower(account);
    END LOOP;
    DELETE FROM consents WHERE resident_id = resident_;
    DELETE FROM family_links WHERE resident_id = resident_;
    FOR a IN
        UPDATE alarms SET handling = 'closed', outcome = 'unknown', closed_at = clock_timestamp()
        WHERE resident_id = resident_ AND handling <> 'closed' RETURNING *
    LOOP
        PERFORM record_change(a, 'closed', NULL, 'policy', 'rule', 'erased');
    END LOOP;
    RETURN true;
END $$;

-- The second step: the person and all that hangs on it, and the name of a home where nobody else
-- lives.
CREATE FUNCTION erase_person(erasure_ bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    e erasures;
    here text;
    went jsonb;
BEGIN
    SELECT * INTO e FROM erasures
    WHERE id = erasure_ AND began_at IS NOT NULL AND gone_at IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT p.path INTO here FROM residents r JOIN places p ON p.id = r.place_id
    WHERE r.id = e.resident_id;
    SELECT jsonb_build_object('alarms', count(*)) INTO went
    FROM alarms WHERE resident_id = e.resident_id;
    DELETE FROM alarms WHERE resident_id = e.resident_id;
    DELETE FROM residents WHERE id = e.resident_id;
    UPDATE places p SET name = '-'
    WHERE p.kind = 'home' AND starts_with(here, p.path)
      AND NOT EXISTS (SELECT 1 FROM residents r JOIN places q ON q.id = r.place_id
                      WHERE starts_with(q.path, p.path));
    UPDATE erasures SET gone_at = clock_timestamp(), swept = went WHERE id = erasure_;
    RETURN true;
END $$;

-- Removes what was rolled up of a device in a span. The units at its edges hold readings of before
-- and after as well: the first time they go too, and are due to be rolled up from what is left.
CREATE FUNCTION forget_rollups(device integer, during tstzrange, edges boolean)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    unit text;
    store text;
    gone bigint;
    total bigint := 0;
BEGIN
    DELETE FROM rollup_due d
    WHERE d.device_key = device AND d.minute >= coalesce(lower(during), '-infinity')
      AND d.minute + interval '1 minute' <= upper(during);
    FOREACH unit IN ARRAY ARRAY['minute', 'hour'] LOOP
        store := unit || '_rollup';
        IF (SELECT relkind FROM pg_class WHERE oid = store::regclass) = 'v' THEN
            -- A continuous aggregate: its rows lie in a hypertable of their own.
            EXECUTE 'SELECT format(''%I.%I'', materialization_hypertable_schema,'
                    ' materialization_hypertable_name)'
                    ' FROM timescaledb_information.continuous_aggregates WHERE view_name = $1'
            INTO STRICT store USING store;
        END IF;
        EXECUTE format(
            'DELETE FROM %s WHERE device_key = $1 AND bucket < $3'
            ' AND CASE WHEN $4 THEN bucket + $5 > $2 ELSE bucket >= $2 AND bucket + $5 <= $3 END',
            store)
        USING device, coalesce(lower(during), '-infinity'), upper(during), edges,
              ('1 ' || unit)::interval;
        GET DIAGNOSTICS gone = ROW_COUNT;
        total := total + gone;
    END LOOP;
    IF edges THEN
        INSERT INTO rollup_due (device_key, minute)
        SELECT DISTINCT device, date_trunc('minute', t.ts)
        FROM unnest(ARRAY[lower(during), upper(during)]) AS edge (at)
        JOIN telemetry t ON t.device_key = device AND t.ts >= date_trunc('hour', edge.at)
                        AND t.ts < date_trunc('hour', edge.at) + interval '1 hour'
        WHERE isfinite(edge.at);
        IF to_regprocedure('roll_up(timestamptz, integer)') IS NULL THEN
            -- A continuous aggregate refreshes only where a reading was changed.
            UPDATE telemetry t SET flags = t.flags
            FROM unnest(ARRAY[lower(during), upper(during)]) AS edge (at)
            WHERE isfinite(edge.at) AND t.device_key = device
              AND t.ts >= date_trunc('minute', edge.at)
              AND t.ts < date_trunc('minute', edge.at) + interval '1 minute';
        END IF;
    END IF;
    RETURN total;
END $$;

-- The third step, again and again until it returns 0, and later for what comes in late: readings of
-- at most a week of one device, then everything else that its devices left behind.
CREATE FUNCTION erase_slice(erasure_ bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    span record;
    first timestamptz;
    new boolean;
    gone bigint;
    went jsonb := '{}';
    total bigint := 0;
BEGIN
    SELECT finished_at IS NULL INTO new FROM erasures
    WHERE id = erasure_ AND gone_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    FOR span IN SELECT s.device_key, s.during, d.id AS device_id
                FROM erased_spans s JOIN devices d ON d.key = s.device_key
                WHERE s.erasure_id = erasure_
    LOOP
        SELECT t.ts INTO first FROM telemetry t
        WHERE t.device_key = span.device_key AND t.ts >= coalesce(lower(span.during), '-infinity')
          AND t.ts < upper(span.during)
        ORDER BY t.ts LIMIT 1;
        IF FOUND THEN
            DELETE FROM telemetry t
            WHERE t.device_key = span.device_key AND t.ts >= first
              AND t.ts < least(first + interval '7 days', upper(span.during));
            GET DIAGNOSTICS gone = ROW_COUNT;
            UPDATE erasures SET
                swept = swept || jsonb_build_object(
                    'telemetry', coalesce((swept ->> 'telemetry')::bigint, 0) + gone)
            WHERE id = erasure_;
            RETURN gone;
        END IF;
    END LOOP;
    FOR span IN SELECT s.device_key, s.during, d.id AS device_id
                FROM erased_spans s JOIN devices d ON d.key = s.device_key
                WHERE s.erasure_id = erasure_
    LOOP
        -- Misdated readings belong to whoever had the device when they came.
        DELETE FROM telemetry t
        WHERE t.device_key = span.device_key AND t.flags & 6 <> 0 AND t.received_at <@ span.during
          AND NOT EXISTS (SELECT 1 FROM assignments a
                          WHERE a.device_key = t.device_key AND a.during @> t.ts);
        GET DIAGNOSTICS gone = ROW_COUNT;
        went := went || jsonb_build_object(
            'telemetry', coalesce((went ->> 'telemetry')::bigint, 0) + gone);
        total := total + gone;
        DELETE FROM events v
        WHERE v.device_key = span.device_key
          AND (v.ts <@ span.during OR v.received_at <@ span.during AND NOT EXISTS (
                SELECT 1 FROM assignments a
                WHERE a.device_key = v.device_key AND a.during @> v.ts));
        GET DIAGNOSTICS gone = ROW_COUNT;
        went := went || jsonb_build_object(
            'events', coalesce((went ->> 'events')::bigint, 0) + gone);
        total := total + gone;
        DELETE FROM quarantine q
        WHERE q.device_id = span.device_id AND q.received_at <@ span.during;
        GET DIAGNOSTICS gone = ROW_COUNT;
        went := went || jsonb_build_object(
            'quarantine', coalesce((went ->> 'quarantine')::bigint, 0) + gone);
        total := total + gone;
        DELETE FROM commands c
        WHERE c.device_key = span.device_key AND c.created_at <@ span.during;
        GET DIAGNOSTICS gone = ROW_COUNT;
        went := went || jsonb_build_object(
            'commands', coalesce((went ->> 'commands')::bigint, 0) + gone);
        total := total + gone;
        gone := forget_rollups(span.device_key, span.during, new);
        went := went || jsonb_build_object(
            'rollups', coalesce((went ->> 'rollups')::bigint, 0) + gone);
        total := total + gone;
        -- Newest values of then; what the device has measured for somebody else since stays.
        UPDATE latest l SET
            metrics = kept.metrics,
            active_at = CASE WHEN l.active_at <@ span.during THEN NULL ELSE l.active_at END,
            absent_since =
                CASE WHEN l.absent_since <@ span.during THEN NULL ELSE l.absent_since END,
            present_since =
                CASE WHEN l.present_since <@ span.during THEN NULL ELSE l.present_since END
        FROM (SELECT coalesce(jsonb_object_agg(key, value), '{}') AS metrics
              FROM latest x CROSS JOIN jsonb_each(x.metrics)
              WHERE x.device_key = span.device_key
                AND NOT to_timestamp((value ->> 1)::bigint / 1000.0) <@ span.during) AS kept
        WHERE l.device_key = span.device_key AND l.ts >= upper(span.during)
          AND l.metrics <> kept.metrics;
        GET DIAGNOSTICS gone = ROW_COUNT;
        total := total + gone;
        DELETE FROM latest l WHERE l.device_key = span.device_key AND l.ts <@ span.during;
        GET DIAGNOSTICS gone = ROW_COUNT;
        total := total + gone;
    END LOOP;
    UPDATE erasures SET
        finished_at = coalesce(finished_at, clock_timestamp()),
        swept = (SELECT swept || coalesce(jsonb_object_agg(
                    key, coalesce((swept ->> key)::bigint, 0) + value::bigint), '{}')
                 FROM jsonb_each_text(went))
    WHERE id = erasure_;
    RETURN total;
END $$;

-- How long what is kept is one table, anxin/retention.py. What is old is found by where it lies.
CREATE INDEX events_age ON events USING brin (received_at);
CREATE INDEX alarms_age ON alarms USING brin (raised_at);
CREATE INDEX deliveries_age ON deliveries USING brin (created_at);

CREATE FUNCTION forget_rollups_before(minutes timestamptz, hours timestamptz) RETURNS bigint
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    gone bigint;
    total bigint := 0;
BEGIN
    IF to_regprocedure('roll_up(timestamptz, integer)') IS NULL THEN
        EXECUTE 'SELECT count(*) FROM (SELECT drop_chunks(''minute_rollup'', $1)'
                ' UNION ALL SELECT drop_chunks(''hour_rollup'', $2)) AS chunks'
        INTO total USING minutes, hours;
        RETURN total;
    END IF;
    DELETE FROM minute_rollup WHERE bucket < minutes;
    GET DIAGNOSTICS gone = ROW_COUNT;
    total := total + gone;
    DELETE FROM hour_rollup WHERE bucket < hours;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN total + gone;
END $$;

-- Readings for the export of one person: of one assignment, in order of time.
CREATE FUNCTION exported_readings(assignment bigint, from_ timestamptz, most integer)
RETURNS SETOF telemetry LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE a record;
BEGIN
    SELECT s.device_key, s.resident_id, s.during INTO a FROM assignments s WHERE s.id = assignment;
    -- Not simply nothing: an export without the readings would pass for a whole one.
    IF NOT FOUND OR NOT acting_may('export') OR NOT sees_resident(a.resident_id, 'vitals') THEN
        RAISE EXCEPTION 'This may not be exported.' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN QUERY
        SELECT t.* FROM telemetry t
        WHERE t.device_key = a.device_key
          AND t.ts >= greatest(coalesce(lower(a.during), '-infinity'), from_)
          AND t.ts < coalesce(upper(a.during), 'infinity')
        ORDER BY t.ts LIMIT most;
END $$;

-- A consent that ran out closes at that moment, for the policies as well.
CREATE OR REPLACE FUNCTION acting_residents(scope text) RETURNS bigint[] LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN coalesce((SELECT array_agg(f.resident_id)
                     FROM family_links f JOIN users u ON u.id = f.user_id
                     WHERE u.id = acting_user() AND u.role = 'family'
                       AND scope = ANY(scopes_in_force(f.scopes, f.ends))), '{}');
END $$;

-- Who may touch what of this.
DO $$
DECLARE
    name_ text;
    one record;
    command_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY['person_keys', 'identities', 'relatives', 'consents', 'erasures',
                                 'erased_spans'] LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO anxin_owner', name_);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name_);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name_);
        -- `anxin keys rotate`, `anxin export`, `anxin erase` are the operator's.
        EXECUTE format('CREATE POLICY owner_all ON %I FOR ALL TO anxin_owner USING (true)', name_);
    END LOOP;
    GRANT CREATE ON SCHEMA public TO anxin_gate;
    FOREACH name_ IN ARRAY ARRAY[
        'follow_consent()', 'begin_erasure(bigint)', 'erase_person(bigint)', 'erase_slice(bigint)',
        'forget_rollups(integer, tstzrange, boolean)',
        'exported_readings(bigint, timestamptz, integer)'
    ] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name_);
        EXECUTE format('ALTER FUNCTION %s OWNER TO anxin_gate', name_);
    END LOOP;
    FOREACH name_ IN ARRAY ARRAY['consent_is_history()', 'scopes_in_force(text[], timestamptz[])',
                                 'forget_rollups_before(timestamptz, timestamptz)'] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name_);
        EXECUTE format('ALTER FUNCTION %s OWNER TO anxin_owner', name_);
    END LOOP;
    REVOKE CREATE ON SCHEMA public FROM anxin_gate;
    FOR one IN
        SELECT role_, split_part(use_, ':', 1) AS table_, split_part(use_, ':', 2) AS uses
        FROM (VALUES
            ('anxin_gate', 'consents:SD family_links:IUD erasures:SU erased_spans:SI assignments:D '
                'person_keys:SD users:D alarms:D residents:D places:U devices:U events:SD '
                'quarantine:SD commands:SD latest:UD login_attempts:SD'),
            ('anxin_worker', 'erasures:S events:D alarms:D deliveries:D commands:D')
        ) AS roles (role_, uses), regexp_split_to_table(uses, '\s+') AS use_
    LOOP
        FOREACH command_ IN ARRAY string_to_array(one.uses, NULL) LOOP
            command_ := CASE command_ WHEN 'S' THEN 'SELECT' WHEN 'I' THEN 'INSERT'
                                      WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' END;
            IF one.table_ NOT IN ('places', 'devices') THEN
                EXECUTE format('GRANT %s ON %I TO %I', command_, one.table_, one.role_);
            END IF;
            EXECUTE format('CREATE POLICY %I ON %I FOR %s TO %I %s',
                           one.role_ || '_' || lower(command_), one.table_, command_, one.role_,
                           CASE command_ WHEN 'INSERT' THEN 'WITH CHECK (true)' ELSE 'USING (true)' END);
        END LOOP;
    END LOOP;
    -- On TimescaleDB a continuous aggregate lies in a hypertable of its own.
    IF to_regprocedure('roll_up(timestamptz, integer)') IS NOT NULL THEN
        GRANT SELECT, DELETE ON minute_rollup, hour_rollup TO anxin_gate, anxin_worker;
    ELSE
        FOR name_ IN EXECUTE
            'SELECT format(''%I.%I'', materialization_hypertable_schema,'
            ' materialization_hypertable_name) FROM timescaledb_information.continuous_aggregates'
        LOOP
            EXECUTE format('GRANT SELECT, DELETE ON %s TO anxin_gate', name_);
        END LOOP;
        GRANT USAGE ON SCHEMA _timescaledb_internal TO anxin_gate;
    END IF;
END $$;
GRANT UPDATE (name) ON places, devices TO anxin_gate;
GRANT SELECT, UPDATE, DELETE ON telemetry TO anxin_gate;
GRANT SELECT, INSERT, DELETE ON rollup_due TO anxin_gate;
GRANT EXECUTE ON FUNCTION scopes_in_force(text[], timestamptz[])
    TO anxin_gate, anxin_api, anxin_door, anxin_worker;
GRANT EXECUTE ON FUNCTION begin_erasure(bigint), erase_person(bigint), erase_slice(bigint),
    forget_rollups_before(timestamptz, timestamptz) TO anxin_worker;
GRANT EXECUTE ON FUNCTION exported_readings(bigint, timestamptz, integer) TO anxin_api;

-- Links come from consents only.
DROP POLICY api_write ON family_links;
REVOKE INSERT, UPDATE, DELETE ON family_links FROM anxin_api;

-- Whoever sees the resident, with the right to it. A family sees none of this.
GRANT SELECT, INSERT ON person_keys TO anxin_api;
GRANT SELECT, INSERT, UPDATE ON identities TO anxin_api;
GRANT SELECT, INSERT, DELETE ON relatives TO anxin_api;
CREATE POLICY api_select ON person_keys FOR SELECT TO anxin_api USING (
    (SELECT acting_may('people.read')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_insert ON person_keys FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('people.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_select ON identities FOR SELECT TO anxin_api USING (
    (SELECT acting_may('people.read')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_insert ON identities FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('people.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_update ON identities FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('people.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_select ON relatives FOR SELECT TO anxin_api USING (
    (SELECT acting_may('people.read')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_insert ON relatives FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('people.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_delete ON relatives FOR DELETE TO anxin_api USING (
    (SELECT acting_may('people.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));

GRANT SELECT, INSERT (resident_id, purpose, user_id, scopes, given_by, relation, how, given_at,
                      until_at, recorded_by),
      UPDATE (withdrawn_at, withdrawn_by) ON consents TO anxin_api;
CREATE POLICY api_select ON consents FOR SELECT TO anxin_api USING (
    (SELECT acting_may('family.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id));
CREATE POLICY api_insert ON consents FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('family.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id)
    AND recorded_by = (SELECT acting_user())
    AND (user_id IS NULL OR EXISTS (SELECT FROM users u WHERE u.id = user_id AND u.role = 'family')));
CREATE POLICY api_update ON consents FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('family.write')) AND EXISTS (SELECT FROM residents r WHERE r.id = resident_id))
    WITH CHECK (withdrawn_by = (SELECT acting_user()));

GRANT SELECT, INSERT (resident_id, place_id, requested_by),
      UPDATE (approved_by, approved_at, refused_at) ON erasures TO anxin_api;
CREATE POLICY api_select ON erasures FOR SELECT TO anxin_api USING (
    (SELECT acting_may('administer'))
    AND ((SELECT acting_path()) = '/'
         OR EXISTS (SELECT FROM places p
                    WHERE p.id = place_id AND starts_with(p.path, (SELECT acting_path())))));
CREATE POLICY api_insert ON erasures FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('administer')) AND requested_by = (SELECT acting_user())
    AND EXISTS (SELECT FROM residents r
                WHERE r.id = resident_id AND r.place_id = erasures.place_id));
CREATE POLICY api_update ON erasures FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('administer')) AND began_at IS NULL
    AND place_is_under(place_id, (SELECT acting_path())))
    WITH CHECK (approved_at IS NULL OR approved_by = (SELECT acting_user()));
