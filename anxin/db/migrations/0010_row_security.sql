-- Who may see and do what, held by the database itself. Roles, what each may touch, and whose rows
-- a session of a person reaches. `docs/security.md` tells it in words.
--
--   anxin_owner   owns every object; nobody logs in as it
--   anxin_gate    owns the functions that look past the policies on purpose; nobody logs in as it
--   anxin_api     a request on behalf of one session: sees what that session's user may see
--   anxin_door    the API before anybody is known, and the alarm stream that serves many at once
--   anxin_ingest  anxin_worker  the services

-- Roles belong to the whole cluster: another database may create them at this moment.
DO $$
DECLARE name_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY['anxin_owner', 'anxin_gate', 'anxin_api', 'anxin_door',
                                 'anxin_ingest', 'anxin_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name_) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name_);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        -- Who migrates without being a superuser acts as these roles.
        IF current_setting('is_superuser') = 'off' AND NOT pg_has_role(name_, 'USAGE') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', name_);
        END IF;
    END LOOP;
END $$;

-- PUBLIC has nothing, now and later; what belongs to an extension stays as it is.
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO anxin_owner, anxin_gate, anxin_api, anxin_door, anxin_ingest,
                                anxin_worker;
GRANT CREATE ON SCHEMA public TO anxin_owner, anxin_gate;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO anxin_api, anxin_door', current_database());
    -- Both keep a batch in a temporary table.
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO anxin_ingest, anxin_worker',
                   current_database());
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
-- A server made for a single session cannot change the rights of its one database, and needs none.
EXCEPTION WHEN internal_error THEN
    RAISE WARNING 'the rights on this database stay as they are: %', SQLERRM;
END $$;

-- What a role may do is data: a role is a bundle of rights.
CREATE TABLE role_rights (
    role    text NOT NULL CHECK (role IN ('admin', 'supervisor', 'nurse', 'family', 'integrator')),
    right_  text NOT NULL CHECK (right_ <> ''),
    PRIMARY KEY (role, right_)
);
COMMENT ON TABLE role_rights IS 'Which rights each role bundles; on whom they hold is a matter of scope.';
INSERT INTO role_rights (role, right_)
SELECT unnest(string_to_array(roles, ' ')), right_ FROM (VALUES
    ('places.read', 'admin supervisor nurse integrator'),
    ('places.write', 'admin supervisor integrator'),
    ('residents.read', 'admin supervisor nurse family integrator'),
    ('residents.write', 'admin supervisor integrator'),
    ('limits.write', 'admin supervisor'),
    ('family.write', 'admin supervisor'),
    ('status.read', 'admin supervisor nurse family integrator'),
    ('vitals.read', 'admin supervisor nurse family integrator'),
    ('events.read', 'admin supervisor nurse family integrator'),
    ('devices.read', 'admin supervisor nurse integrator'),
    ('devices.write', 'admin supervisor integrator'),
    ('devices.secrets', 'admin supervisor integrator'),
    ('alarms.read', 'admin supervisor nurse family integrator'),
    ('alarms.acknowledge', 'admin supervisor nurse'),
    ('alarms.close', 'admin supervisor nurse'),
    ('alarms.snooze', 'admin supervisor nurse'),
    ('timeline.read', 'admin supervisor nurse integrator'),
    ('assess', 'admin supervisor nurse'),
    ('quarantine.read', 'admin supervisor nurse integrator'),
    ('users.read', 'admin supervisor'),
    ('users.write', 'admin supervisor'),
    ('stations.read', 'admin supervisor nurse integrator'),
    ('contacts.write', 'admin supervisor'),
    ('reports.read', 'admin supervisor nurse'),
    ('roster.read', 'admin supervisor nurse'),
    ('roster.write', 'admin supervisor'),
    ('export', 'admin supervisor'),
    ('administer', 'admin')
) AS bundles (right_, roles);

-- Everything that exists gets its owner, and every table of ours its row security. Telemetry and its
-- rollups are the exception: COPY and compressed chunks know no policies, so nobody but the services
-- that keep them is granted anything on them.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT c.oid::regclass AS name, c.relkind, c.relname,
               EXISTS (SELECT FROM pg_class t WHERE t.relname = 'telemetry'
                       AND t.relnamespace = 'public'::regnamespace
                       AND (t.oid = c.oid OR EXISTS (SELECT FROM pg_inherits i
                            WHERE i.inhparent = t.oid AND i.inhrelid = c.oid)))
               OR c.relname IN ('minute_rollup', 'hour_rollup', 'rollup_due') AS is_telemetry
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
          AND NOT EXISTS (SELECT FROM pg_depend d
                          WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                            AND (d.deptype = 'e'  -- of an extension
                                 OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))  -- of a column
        ORDER BY c.relkind = 'v', c.oid
    LOOP
        IF one.relkind = 'v' AND one.relname IN ('minute_rollup', 'hour_rollup') THEN
            -- Only its owner may refresh a continuous aggregate.
            EXECUTE format('ALTER MATERIALIZED VIEW %s OWNER TO anxin_worker', one.name);
        ELSIF one.relkind = 'v' THEN
            EXECUTE format('ALTER VIEW %s OWNER TO anxin_owner', one.name);
            EXECUTE format('ALTER VIEW %s SET (security_invoker = true)', one.name);
        ELSIF one.relkind = 'S' THEN
            EXECUTE format('ALTER SEQUENCE %s OWNER TO anxin_owner', one.name);
        ELSE
            EXECUTE format('ALTER TABLE %s OWNER TO anxin_owner', one.name);
            IF NOT one.is_telemetry THEN
                EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', one.name);
                EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', one.name);
            END IF;
        END IF;
    END LOOP;
    FOR one IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND p.proname NOT IN ('drop_old_chunks')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid
                          AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', one.name);
        EXECUTE format('ALTER ROUTINE %s OWNER TO anxin_owner', one.name);
    END LOOP;
END $$;

-- Who is acting. The session is named by the hash of its token in the setting anxin.session, for one
-- transaction; the database looks up the rest, so that nobody becomes somebody else by a statement.

CREATE FUNCTION acting_user() RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (SELECT u.id FROM sessions s JOIN users u ON u.id = s.user_id
            WHERE s.token_hash = decode(nullif(current_setting('anxin.session', true), ''), 'hex')
              AND s.expires_at > now() AND u.disabled_at IS NULL);
END $$;

CREATE FUNCTION acting_role() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE acting bigint := acting_user();
BEGIN
    RETURN (SELECT u.role FROM users u WHERE u.id = acting);
END $$;

-- Staff sees the tree under its place, an administrator without place everything, a family no place.
CREATE FUNCTION acting_path() RETURNS text LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE acting bigint := acting_user();
BEGIN
    RETURN (SELECT CASE WHEN u.role = 'family' THEN NULL
                        WHEN u.place_id IS NOT NULL
                        THEN (SELECT p.path FROM places p WHERE p.id = u.place_id)
                        WHEN u.role = 'admin' THEN '/' END
            FROM users u WHERE u.id = acting);
END $$;

-- The residents who let this relative see a side of them.
CREATE FUNCTION acting_residents(scope text) RETURNS bigint[] LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE acting bigint := acting_user();
BEGIN
    RETURN coalesce((SELECT array_agg(f.resident_id)
                     FROM family_links f JOIN users u ON u.id = f.user_id
                     WHERE u.id = acting AND u.role = 'family' AND scope = ANY(f.scopes)), '{}');
END $$;

CREATE FUNCTION acting_may(right_ text) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE acting bigint := acting_user();
BEGIN
    RETURN EXISTS (SELECT FROM role_rights r JOIN users u ON u.role = r.role
                   WHERE u.id = acting AND r.right_ = acting_may.right_);
END $$;

-- The places where the relatives of a family live: the bed itself, not what is around it.
CREATE FUNCTION acting_places() RETURNS bigint[] LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE theirs bigint[] := acting_residents('status');
BEGIN
    RETURN coalesce((SELECT array_agg(r.place_id) FROM residents r WHERE r.id = ANY(theirs)), '{}');
END $$;

-- Where things are. Policies ask these for rows that hang on others: a nested policy would be planned
-- anew inside every statement, which costs more than to answer it. They look past the policies, and
-- tell of two ids no more than whether one lies under the other.

CREATE FUNCTION place_is_under(place bigint, path_ text) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN path_ = '/' OR EXISTS (SELECT FROM places p
                                  WHERE p.id = place AND starts_with(p.path, path_));
END $$;

-- Under it, or on the way up from it.
CREATE FUNCTION place_is_along(place bigint, path_ text) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN path_ = '/' OR EXISTS (SELECT FROM places p
                                  WHERE p.id = place AND (starts_with(p.path, path_)
                                                          OR starts_with(path_, p.path)));
END $$;

CREATE FUNCTION resident_is_under(resident bigint, path_ text) RETURNS boolean LANGUAGE plpgsql
STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN path_ = '/' OR EXISTS (SELECT FROM residents r JOIN places p ON p.id = r.place_id
                                  WHERE r.id = resident AND starts_with(p.path, path_));
END $$;

-- A device is where it stands, and with whom it is now.
CREATE FUNCTION device_is_under(device integer, path_ text) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN path_ = '/'
        OR EXISTS (SELECT FROM devices d JOIN places p ON p.id = d.place_id
                   WHERE d.key = device AND starts_with(p.path, path_))
        OR EXISTS (SELECT FROM assignments s JOIN residents r ON r.id = s.resident_id
                   JOIN places p ON p.id = r.place_id
                   WHERE s.device_key = device AND s.during @> now()
                     AND starts_with(p.path, path_));
END $$;

CREATE FUNCTION device_stands_under(device integer, path_ text) RETURNS boolean LANGUAGE plpgsql
STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN path_ = '/' OR EXISTS (SELECT FROM devices d JOIN places p ON p.id = d.place_id
                                  WHERE d.key = device AND starts_with(p.path, path_));
END $$;

CREATE FUNCTION device_is_with(device integer, residents_ bigint[]) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN residents_ <> '{}' AND EXISTS (
        SELECT FROM assignments s
        WHERE s.device_key = device AND s.during @> now() AND s.resident_id = ANY(residents_));
END $$;

-- Whether something is within reach of who is acting.

CREATE FUNCTION sees_resident(resident bigint, scope text) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN coalesce(resident_is_under(resident, acting_path()),
                    resident = ANY(acting_residents(scope)));
END $$;

CREATE FUNCTION sees_device(device integer) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE path_ text := acting_path();
BEGIN
    RETURN CASE WHEN path_ IS NOT NULL THEN device_is_under(device, path_)
                ELSE device_is_with(device, acting_residents('status')) END;
END $$;

-- An event belongs to whoever had the device at that time, else to the place of the device.
CREATE FUNCTION sees_event(device integer, moment timestamptz) RETURNS boolean LANGUAGE plpgsql
STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE resident bigint := (SELECT s.resident_id FROM assignments s
                            WHERE s.device_key = device AND s.during @> moment);
BEGIN
    RETURN CASE WHEN resident IS NULL THEN device_stands_under(device, acting_path())
                ELSE sees_resident(resident, 'events') END;
END $$;

-- An alarm is where its subject is: the resident, else the place, else the place of the device.
CREATE FUNCTION sees_alarm(alarm bigint) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    path_ text := acting_path();
    a record;
BEGIN
    IF path_ = '/' THEN
        RETURN true;
    END IF;
    SELECT x.resident_id, x.place_id, x.device_key INTO a FROM alarms x WHERE x.id = alarm;
    RETURN CASE WHEN a.resident_id IS NOT NULL THEN sees_resident(a.resident_id, 'alarms')
                WHEN a.place_id IS NOT NULL THEN place_is_under(a.place_id, path_)
                ELSE device_stands_under(a.device_key, path_) END;
END $$;

DO $$
DECLARE name_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY[
        'acting_user()', 'acting_role()', 'acting_path()', 'acting_residents(text)',
        'acting_may(text)', 'acting_places()', 'place_is_under(bigint, text)',
        'place_is_along(bigint, text)', 'resident_is_under(bigint, text)',
        'device_is_under(integer, text)', 'device_stands_under(integer, text)',
        'device_is_with(integer, bigint[])', 'sees_resident(bigint, text)',
        'sees_device(integer)', 'sees_event(integer, timestamptz)', 'sees_alarm(bigint)'
    ] LOOP
        -- Each looks a few keys up. In a small table a scan is thought cheaper, and is not.
        EXECUTE format('ALTER FUNCTION %s SET enable_seqscan = off', name_);
        EXECUTE format('ALTER FUNCTION %s OWNER TO anxin_gate', name_);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name_);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO anxin_api', name_);
    END LOOP;
END $$;

-- What follows from a change happens whoever made the change, so that nobody needs the rights to it:
-- timers, marks for ingest, the place of a self-test.
DO $$
DECLARE name_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY[
        'place_path()', 'device_changed()', 'keep_timer()', 'mark_self_test()',
        'raise_alarm(text, bigint, bigint, integer, text, text, smallint, timestamptz, boolean,
                     integer, jsonb, text)',
        'recover_alarm(text, text, text)'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO anxin_gate', name_);
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', name_);
        EXECUTE format('ALTER FUNCTION %s SET search_path = public, pg_temp', name_);
    END LOOP;
END $$;

-- As before, but whoever asks: the names in it are those of a device and a user that the caller may
-- not see otherwise. Only of a row that the caller has seen, exactly as it is stored: a made up row
-- shows nothing.
CREATE OR REPLACE FUNCTION alarm_object(a alarms) RETURNS jsonb LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    RETURN (SELECT jsonb_build_object(
        'id', a.id::text,
        'resident_id', a.resident_id::text,
        'place_id', a.place_id::text,
        'device_id', (SELECT d.id FROM devices d WHERE d.key = a.device_key),
        'kind', a.kind,
        'class', a.class,
        'priority', (ARRAY['low', 'medium', 'high'])[a.priority],
        'condition', a.condition,
        'handling', a.handling,
        'outcome', a.outcome,
        'count', a.count,
        'raised_at', a.raised_at,
        'last_at', a.last_at,
        'event_at', a.event_at,
        'late', a.late,
        'owner', (SELECT u.username FROM users u WHERE u.id = a.owner_id),
        'snoozed_until', a.snoozed_until,
        'condition_delay_s',
            round(extract(epoch FROM greatest(a.raised_at - a.event_at, '0')), 3),
        'signal_delay_s', (
            SELECT round(extract(epoch FROM greatest(min(r.at) - a.raised_at, '0')), 3)
            FROM receipts r WHERE r.alarm_id = a.id AND r.kind = 'displayed'),
        'detail', a.detail)
    FROM alarms stored WHERE stored.id = a.id AND stored = a);
END $$;
ALTER FUNCTION alarm_object(alarms) OWNER TO anxin_gate;

-- A line of the timeline shows the alarm as the table has it, whoever writes the line: nobody can
-- tell a stream of an alarm that is not.
CREATE FUNCTION show_alarm() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    NEW.alarm := (SELECT alarm_object(a) FROM alarms a WHERE a.id = NEW.alarm_id);
    RETURN NEW;
END $$;
ALTER FUNCTION show_alarm() OWNER TO anxin_gate;
REVOKE ALL ON FUNCTION show_alarm() FROM PUBLIC;
CREATE TRIGGER show_alarm BEFORE INSERT ON timeline FOR EACH ROW EXECUTE FUNCTION show_alarm();

-- As before, but for the alarm itself, which show_alarm() fills in.
CREATE OR REPLACE FUNCTION record_change(
    a alarms, change text, actor_id bigint, actor text, channel text, note text DEFAULT NULL,
    rings boolean DEFAULT true
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE line bigint;
BEGIN
    INSERT INTO timeline (alarm_id, change, actor_id, actor, channel, note, alarm)
    VALUES (a.id, change, actor_id, actor, channel, note, '{}')
    RETURNING id INTO line;
    IF change IN ('raised', 'priority') THEN
        INSERT INTO outbox (timeline_id, alarm_id, channel) VALUES (line, a.id, 'station');
    END IF;
    IF rings THEN
        NOTIFY anxin_alarm;
    END IF;
END $$;

-- Keeping partitions is the owner's business; the worker asks for it.
ALTER FUNCTION add_partition(timestamptz) SECURITY DEFINER;
ALTER FUNCTION add_partition(timestamptz) SET search_path = public, pg_temp;
ALTER FUNCTION drop_partitions(timestamptz) SECURITY DEFINER;
ALTER FUNCTION drop_partitions(timestamptz) SET search_path = public, pg_temp;
-- A job of TimescaleDB can be altered by who made it only, and that is who migrates.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_proc WHERE proname = 'drop_old_chunks'
               AND pronamespace = 'public'::regnamespace) THEN
        ALTER FUNCTION drop_partitions(timestamptz) OWNER TO CURRENT_USER;
        REVOKE ALL ON PROCEDURE drop_old_chunks(integer, jsonb) FROM PUBLIC;
    END IF;
END $$;

-- What the services and the gate use, table by table: S select, I insert, U update, D delete. They
-- serve everybody, so a policy of theirs names the command and no row.
DO $$
DECLARE
    one record;
    command_ text;
BEGIN
    FOR one IN
        SELECT role_, split_part(use_, ':', 1) AS table_, split_part(use_, ':', 2) AS uses
        FROM (VALUES
            ('anxin_gate', 'sessions:S users:S places:S residents:S family_links:S role_rights:S '
                'devices:S assignments:S latest:S self_tests:S receipts:S contacts:S device_changes:SI '
                'alarms:SIU timeline:SI outbox:SI escalations:SIUD deliveries:SU'),
            ('anxin_door', 'schema_migrations:S role_rights:S sessions:SID tickets:SID '
                'login_attempts:SID users:S places:S residents:S family_links:S devices:S '
                'assignments:S device_states:S latest:S listening:S alarms:S timeline:SU outbox:SU '
                'receipts:SI stations:SIUD contacts:SU deliveries:SU'),
            ('anxin_ingest', 'schema_migrations:S devices:S assignments:S residents:S latest:SIU '
                'device_states:SIU events:SI alarms:S quarantine:SI commands:SU device_changes:S '
                'listening:SIU'),
            ('anxin_worker', 'schema_migrations:S role_rights:S users:S places:SI residents:S '
                'family_links:S devices:SIU assignments:S device_states:SIU latest:S events:S '
                'commands:S quarantine:SD device_changes:SD login_attempts:SD tickets:SD '
                'sessions:SD listening:SD alarms:SIU timeline:SI outbox:SI receipts:S '
                'escalations:SIUD deliveries:SIU contacts:SU ladders:S shifts:S stations:SU '
                'self_tests:SIUD')
        ) AS roles (role_, uses), regexp_split_to_table(uses, '\s+') AS use_
        WHERE use_ <> ''
    LOOP
        FOREACH command_ IN ARRAY string_to_array(one.uses, NULL) LOOP
            command_ := CASE command_ WHEN 'S' THEN 'SELECT' WHEN 'I' THEN 'INSERT'
                                      WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' END;
            EXECUTE format('GRANT %s ON %I TO %I', command_, one.table_, one.role_);
            EXECUTE format('CREATE POLICY %I ON %I FOR %s TO %I %s', one.role_ || '_' || lower(command_),
                           one.table_, command_, one.role_,
                           CASE command_ WHEN 'INSERT' THEN 'WITH CHECK (true)' ELSE 'USING (true)' END);
        END LOOP;
    END LOOP;
END $$;

-- Nobody but the door needs to see what passwords are compared with, nobody but ingest those of devices.
REVOKE SELECT ON users FROM anxin_worker;
GRANT SELECT (id, username, role, place_id, disabled_at, created_at) ON users TO anxin_worker;
REVOKE SELECT ON devices FROM anxin_gate, anxin_door, anxin_worker;
GRANT SELECT (key, id, kind, name, place_id, revoked_at, created_at, gateway_key) ON devices
    TO anxin_gate, anxin_door, anxin_worker;
REVOKE SELECT ON users FROM anxin_gate;
GRANT SELECT (id, username, role, place_id, disabled_at) ON users TO anxin_gate;
REVOKE SELECT, UPDATE ON contacts FROM anxin_door;
GRANT SELECT (id, user_id, place_id, office, channel, enabled, failures, failing_since, alarmed_at,
              last_ok_at, last_error) ON contacts TO anxin_door;
GRANT UPDATE (failures, failing_since, alarmed_at, last_ok_at, last_error) ON contacts TO anxin_door;

GRANT SELECT, INSERT, UPDATE ON telemetry TO anxin_ingest;
GRANT SELECT, INSERT ON rollup_due TO anxin_ingest;
GRANT SELECT ON telemetry TO anxin_gate, anxin_worker;
GRANT SELECT ON minute_rollup, hour_rollup, rollup_due TO anxin_gate;
GRANT SELECT, UPDATE, DELETE ON rollup_due TO anxin_worker;
GRANT SELECT, INSERT, UPDATE ON minute_rollup, hour_rollup TO anxin_worker;
GRANT SELECT ON readings, vitals_minute, vitals_hour TO anxin_worker;
GRANT SELECT ON device_cards TO anxin_ingest;
GRANT SELECT ON device_monitoring, deaf_spells TO anxin_api, anxin_door, anxin_worker;
GRANT USAGE, SELECT ON SEQUENCE stream_cursor TO anxin_door;

GRANT EXECUTE ON FUNCTION
    newest_metrics(jsonb, jsonb), note_listening(boolean),
    raise_alarm(text, bigint, bigint, integer, text, text, smallint, timestamptz, boolean, integer,
                jsonb, text),
    recover_alarm(text, text, text)
    TO anxin_ingest;
GRANT EXECUTE ON FUNCTION
    raise_alarm(text, bigint, bigint, integer, text, text, smallint, timestamptz, boolean, integer,
                jsonb, text),
    recover_alarm(text, text, text), record_change(alarms, text, bigint, text, text, text, boolean),
    escalate(jsonb), rescue_alarms(), begin_timer(alarms), is_escalated(alarms),
    usual_lease_seconds(smallint), add_partition(timestamptz), drop_partitions(timestamptz),
    deaf_since(timestamptz), patience_seconds(text, real, boolean)
    TO anxin_worker;
GRANT EXECUTE ON FUNCTION
    raise_alarm(text, bigint, bigint, integer, text, text, smallint, timestamptz, boolean, integer,
                jsonb, text),
    recover_alarm(text, text, text), advance_stream(), deaf_since(timestamptz),
    patience_seconds(text, real, boolean)
    TO anxin_door;
GRANT EXECUTE ON FUNCTION
    record_change(alarms, text, bigint, text, text, text, boolean), alarm_object(alarms),
    deaf_since(timestamptz), patience_seconds(text, real, boolean)
    TO anxin_api;
GRANT EXECUTE ON FUNCTION
    record_change(alarms, text, bigint, text, text, text, boolean), alarm_object(alarms),
    begin_timer(alarms), is_escalated(alarms), usual_lease_seconds(smallint)
    TO anxin_gate;
DO $$
BEGIN
    IF to_regprocedure('roll_up(timestamptz, integer)') IS NOT NULL THEN
        GRANT EXECUTE ON FUNCTION roll_up(timestamptz, integer) TO anxin_worker;
    END IF;
END $$;

-- What a request may reach, on behalf of its session. (SELECT f()) runs f once a statement; who sees
-- everything is asked first, and pays nothing per row. Policies for changes name the rows once more:
-- a statement without any condition is held by nothing else.

GRANT SELECT ON schema_migrations, role_rights TO anxin_api;
CREATE POLICY api_select ON schema_migrations FOR SELECT TO anxin_api USING (true);
CREATE POLICY api_select ON role_rights FOR SELECT TO anxin_api USING (true);

GRANT SELECT, INSERT ON places TO anxin_api;
-- Own tree, the way up from it (whose duty rosters and ladders hold here too), a relative's bed.
CREATE POLICY api_select ON places FOR SELECT TO anxin_api USING (
    starts_with(path, (SELECT acting_path()))
    OR starts_with((SELECT acting_path()), path)
    OR id = ANY((SELECT acting_places())::bigint[]));
CREATE POLICY api_insert ON places FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('places.write')) AND starts_with(path, (SELECT acting_path())));

GRANT SELECT, INSERT, UPDATE ON residents TO anxin_api;
CREATE POLICY api_select ON residents FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR place_is_under(place_id, (SELECT acting_path()))
    OR id = ANY((SELECT acting_residents('status'))::bigint[]));
CREATE POLICY api_insert ON residents FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('residents.write')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_update ON residents FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('residents.write') OR acting_may('limits.write'))
    AND place_is_under(place_id, (SELECT acting_path())));

GRANT SELECT, INSERT, UPDATE, DELETE ON family_links TO anxin_api;
CREATE POLICY api_select ON family_links FOR SELECT TO anxin_api USING (
    user_id = (SELECT acting_user()) OR (SELECT acting_path()) = '/'
    OR resident_is_under(resident_id, (SELECT acting_path())));
CREATE POLICY api_write ON family_links FOR ALL TO anxin_api USING (
    (SELECT acting_may('family.write')) AND resident_is_under(resident_id, (SELECT acting_path())));

-- Colleagues of the own place, below and above it, and relatives of own residents; of nobody what a
-- password is compared with. A role other than the administrator's makes and changes relatives only.
GRANT SELECT (id, username, role, place_id, disabled_at, created_at),
      INSERT (username, password_hash, role, place_id), UPDATE (password_hash, disabled_at)
    ON users TO anxin_api;
CREATE POLICY api_select ON users FOR SELECT TO anxin_api USING (
    id = (SELECT acting_user()) OR (SELECT acting_path()) = '/'
    OR place_is_along(place_id, (SELECT acting_path()))
    OR (SELECT acting_path()) IS NOT NULL
       AND (role = 'admin' AND place_id IS NULL
            OR EXISTS (SELECT FROM family_links f WHERE f.user_id = users.id)));
CREATE POLICY api_insert ON users FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('users.write'))
    AND (role = 'family' OR (SELECT acting_role()) = 'admin')
    AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_update ON users FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('users.write'))
    AND (role = 'family' OR (SELECT acting_role()) = 'admin')
    AND place_is_under(place_id, (SELECT acting_path())));

-- Sessions can be ended, their tokens not be read: one's own, and those of users one may change.
GRANT SELECT (user_id, created_at, expires_at), DELETE ON sessions TO anxin_api;
CREATE POLICY api_select ON sessions FOR SELECT TO anxin_api USING (
    user_id = (SELECT acting_user())
    OR (SELECT acting_may('users.write')) AND EXISTS (
        SELECT FROM users u
        WHERE u.id = user_id AND (u.role = 'family' OR (SELECT acting_role()) = 'admin')
          AND place_is_under(u.place_id, (SELECT acting_path()))));
CREATE POLICY api_delete ON sessions FOR DELETE TO anxin_api USING (
    user_id = (SELECT acting_user())
    OR (SELECT acting_may('users.write')) AND EXISTS (
        SELECT FROM users u
        WHERE u.id = user_id AND (u.role = 'family' OR (SELECT acting_role()) = 'admin')
          AND place_is_under(u.place_id, (SELECT acting_path()))));

GRANT SELECT, INSERT, UPDATE, DELETE ON assignments TO anxin_api;
CREATE POLICY api_select ON assignments FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR resident_is_under(resident_id, (SELECT acting_path()))
    OR resident_id = ANY((SELECT acting_residents('status'))::bigint[])
    OR device_stands_under(device_key, (SELECT acting_path())));
CREATE POLICY api_insert ON assignments FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('devices.write')) AND resident_is_under(resident_id, (SELECT acting_path()))
    AND sees_device(device_key));
CREATE POLICY api_update ON assignments FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('devices.write'))
    AND (resident_is_under(resident_id, (SELECT acting_path()))
         OR device_stands_under(device_key, (SELECT acting_path()))));
CREATE POLICY api_delete ON assignments FOR DELETE TO anxin_api USING (
    (SELECT acting_may('devices.write'))
    AND (resident_is_under(resident_id, (SELECT acting_path()))
         OR device_stands_under(device_key, (SELECT acting_path()))));

-- A relative sees what devices its resident has and had, for the events of then.
GRANT SELECT (key, id, kind, name, place_id, revoked_at, created_at, gateway_key),
      INSERT (id, kind, name, place_id, salt, secret_hash),
      UPDATE (kind, name, place_id, gateway_key, salt, secret_hash, revoked_at)
    ON devices TO anxin_api;
CREATE POLICY api_select ON devices FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR place_is_under(place_id, (SELECT acting_path()))
    OR device_is_under(key, (SELECT acting_path()))
    OR (SELECT acting_path()) IS NULL AND EXISTS (
        SELECT FROM assignments s WHERE s.device_key = key
          AND s.resident_id = ANY((SELECT acting_residents('status'))::bigint[])));
CREATE POLICY api_insert ON devices FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('devices.write')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_update ON devices FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('devices.write')) AND device_is_under(key, (SELECT acting_path())))
    WITH CHECK ((SELECT acting_may('devices.write')));

GRANT SELECT ON device_states, latest, events TO anxin_api;
CREATE POLICY api_select ON device_states FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR device_is_under(device_key, (SELECT acting_path()))
    OR device_is_with(device_key, (SELECT acting_residents('status'))));
CREATE POLICY api_select ON latest FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR device_is_under(device_key, (SELECT acting_path()))
    OR device_is_with(device_key, (SELECT acting_residents('status'))));
CREATE POLICY api_select ON events FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR (SELECT acting_user()) IS NOT NULL AND sees_event(device_key, ts));

GRANT SELECT, INSERT ON commands TO anxin_api;
CREATE POLICY api_select ON commands FOR SELECT TO anxin_api USING (
    (SELECT acting_may('devices.read')) AND device_is_under(device_key, (SELECT acting_path())));
CREATE POLICY api_insert ON commands FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('devices.write')) AND created_by = (SELECT acting_user())
    AND device_is_under(device_key, (SELECT acting_path())));

GRANT SELECT ON quarantine TO anxin_api;
CREATE POLICY api_select ON quarantine FOR SELECT TO anxin_api USING (
    (SELECT acting_may('quarantine.read'))
    AND ((SELECT acting_path()) = '/' OR EXISTS (SELECT FROM devices d WHERE d.id = device_id)));

GRANT SELECT, UPDATE (handling, owner_id, outcome, closed_at, snoozed_until) ON alarms TO anxin_api;
CREATE POLICY api_select ON alarms FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/'
    OR CASE WHEN resident_id IS NOT NULL THEN resident_is_under(resident_id, (SELECT acting_path()))
            WHEN place_id IS NOT NULL THEN place_is_under(place_id, (SELECT acting_path()))
            ELSE device_stands_under(device_key, (SELECT acting_path())) END
    OR resident_id = ANY((SELECT acting_residents('alarms'))::bigint[]));
CREATE POLICY api_update ON alarms FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('alarms.acknowledge') OR acting_may('alarms.close')
            OR acting_may('alarms.snooze'))
    AND ((SELECT acting_path()) = '/' OR sees_alarm(id)));

GRANT SELECT, INSERT ON timeline TO anxin_api;
CREATE POLICY api_select ON timeline FOR SELECT TO anxin_api USING (
    (SELECT acting_may('timeline.read')) AND ((SELECT acting_path()) = '/' OR sees_alarm(alarm_id)));
CREATE POLICY api_insert ON timeline FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('alarms.acknowledge') OR acting_may('alarms.close')
            OR acting_may('alarms.snooze'))
    AND actor_id = (SELECT acting_user()) AND sees_alarm(alarm_id));

GRANT SELECT ON receipts, deliveries, escalations TO anxin_api;
CREATE POLICY api_select ON receipts FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/' OR (SELECT acting_user()) IS NOT NULL AND sees_alarm(alarm_id));
CREATE POLICY api_select ON deliveries FOR SELECT TO anxin_api USING (
    (SELECT acting_may('timeline.read')) AND ((SELECT acting_path()) = '/' OR sees_alarm(alarm_id)));
CREATE POLICY api_select ON escalations FOR SELECT TO anxin_api USING (
    (SELECT acting_may('timeline.read')) AND ((SELECT acting_path()) = '/' OR sees_alarm(alarm_id)));

-- Rosters and ladders of a place hold for what is below it.
GRANT SELECT, INSERT, DELETE ON shifts TO anxin_api;
CREATE POLICY api_select ON shifts FOR SELECT TO anxin_api USING (
    (SELECT acting_may('roster.read')) AND place_is_along(place_id, (SELECT acting_path())));
CREATE POLICY api_insert ON shifts FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('roster.write')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_delete ON shifts FOR DELETE TO anxin_api USING (
    (SELECT acting_may('roster.write')) AND place_is_under(place_id, (SELECT acting_path())));

GRANT SELECT, INSERT, UPDATE, DELETE ON ladders TO anxin_api;
CREATE POLICY api_select ON ladders FOR SELECT TO anxin_api USING (
    (SELECT acting_may('roster.read')) AND place_is_along(place_id, (SELECT acting_path())));
CREATE POLICY api_write ON ladders FOR ALL TO anxin_api USING (
    (SELECT acting_may('roster.write')) AND place_is_under(place_id, (SELECT acting_path())));

-- Own ways of being reached; for who leads a place, those of its offices and of its people.
GRANT SELECT, INSERT, UPDATE, DELETE ON contacts TO anxin_api;
CREATE POLICY api_all ON contacts FOR ALL TO anxin_api USING (
    user_id = (SELECT acting_user())
    OR (SELECT acting_may('contacts.write'))
       AND (place_is_under(place_id, (SELECT acting_path()))
            OR EXISTS (SELECT FROM users u
                       WHERE u.id = user_id AND place_is_under(u.place_id, (SELECT acting_path())))));

GRANT SELECT ON stations, self_tests TO anxin_api;
CREATE POLICY api_select ON stations FOR SELECT TO anxin_api USING (
    user_id = (SELECT acting_user())
    OR (SELECT acting_may('stations.read')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_select ON self_tests FOR SELECT TO anxin_api USING (
    (SELECT acting_may('stations.read')) AND place_is_under(place_id, (SELECT acting_path())));

GRANT SELECT ON listening TO anxin_api;
CREATE POLICY api_select ON listening FOR SELECT TO anxin_api USING ((SELECT acting_user()) IS NOT NULL);

-- Readings are reached by a request through these functions alone: each asks first whether the
-- resident is theirs to see. Three forms of one question, made from one text: straight from the
-- readings for short spans and fine steps, or from the rollup of minutes or hours.

CREATE FUNCTION sees_vitals(resident bigint) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN current_setting('is_superuser') = 'on'
        OR acting_may('vitals.read') AND sees_resident(resident, 'vitals');
END $$;
ALTER FUNCTION sees_vitals(bigint) OWNER TO anxin_gate;
REVOKE ALL ON FUNCTION sees_vitals(bigint) FROM PUBLIC;

-- How many series a resident's devices of that time can have.
CREATE FUNCTION count_series(resident_ bigint, begins_ timestamptz, ends_ timestamptz)
RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (SELECT count(DISTINCT k.metric)
            FROM assignments a JOIN latest l ON l.device_key = a.device_key
            CROSS JOIN LATERAL jsonb_object_keys(l.metrics) AS k (metric)
            WHERE a.resident_id = resident_ AND a.during && tstzrange(begins_, ends_)
              AND sees_vitals(resident_));
END $$;
ALTER FUNCTION count_series(bigint, timestamptz, timestamptz) OWNER TO anxin_gate;
REVOKE ALL ON FUNCTION count_series(bigint, timestamptz, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_series(bigint, timestamptz, timestamptz) TO anxin_api;

DO $make$
DECLARE
    metrics text[] := ARRAY['hr', 'rr', 'spo2', 'temp', 'sbp', 'dbp', 'glucose', 'weight', 'steps',
                            'movement', 'battery', 'rssi', 'room_temp', 'humidity'];
    one record;
    body text;
    -- The wide buckets as one row per metric: aggregating wide and turning at the end is three times
    -- as fast as the other way round. A value is written as the real number that was sent.
    series text := $part$
    SELECT metric, count(*) AS points, (SELECT sum(taken)::bigint FROM buckets) AS readings,
           string_agg(concat('[', (extract(epoch FROM bucket) * 1000)::bigint, ',', mean::real, ',',
                             low, ',', high, ',', n, ']'), ',' ORDER BY bucket) AS series
    FROM (
        SELECT v.metric, b.bucket, v.n, v.mean, v.low, v.high
        FROM buckets b CROSS JOIN LATERAL (VALUES ROWS) AS v (metric, n, mean, low, high)
        WHERE v.n > 0 LIMIT most_
    ) AS points
    GROUP BY metric ORDER BY metric
$part$;
    -- Buckets straight from the readings.
    from_readings text := $part$
    WITH spans AS MATERIALIZED (
        SELECT device_key, greatest(lower(during), begins_) AS lo,
               least(upper(during), ends_) AS hi
        FROM assignments
        WHERE resident_id = resident_ AND during && tstzrange(begins_, ends_)
    ), buckets AS (
        SELECT date_bin(step_, t.ts, 'epoch') AS bucket, count(*) AS taken, OF_READINGS
        FROM (
            SELECT t.* FROM spans s JOIN telemetry t
                ON t.device_key = s.device_key AND t.ts >= s.lo AND t.ts < s.hi
            LIMIT most_readings_
        ) AS t
        GROUP BY 1
    )
    SERIES
$part$;
    -- Buckets from a rollup: its whole units inside each assignment, except those that still wait to
    -- be rolled up. These, and the edges of an assignment inside a unit, come from the readings.
    from_rollup text := $part$
    WITH spans AS MATERIALIZED (
        SELECT device_key, lo, hi, least(hi, first) AS first,
               greatest(least(hi, first), date_bin('UNIT', hi, 'epoch')) AS last
        FROM (
            SELECT device_key, lo, hi,
                   date_bin('UNIT', lo + interval 'UNIT' - interval '1 microsecond', 'epoch') AS first
            FROM (
                SELECT device_key, greatest(lower(during), begins_) AS lo,
                       least(upper(during), ends_) AS hi
                FROM assignments
                WHERE resident_id = resident_
                  AND during && tstzrange(begins_, ends_)
            ) AS owned
        ) AS aligned
    ), due AS MATERIALIZED (
        SELECT DISTINCT s.device_key, date_bin('UNIT', d.minute, 'epoch') AS bucket
        FROM spans s JOIN rollup_due d
            ON d.device_key = s.device_key AND d.minute >= s.first AND d.minute < s.last
    ), pieces AS (
        SELECT device_key, lo, first AS hi FROM spans WHERE lo < first
        UNION ALL SELECT device_key, last, hi FROM spans WHERE last < hi
        UNION ALL SELECT device_key, bucket, bucket + interval 'UNIT' FROM due
    ), parts AS (
        SELECT date_bin(step_, r.bucket, 'epoch') AS bucket, OF_ROLLUP
        FROM spans s JOIN ROLLUP r
            ON r.device_key = s.device_key AND r.bucket >= s.first AND r.bucket < s.last
        WHERE NOT EXISTS (SELECT 1 FROM due d WHERE d.device_key = r.device_key AND d.bucket = r.bucket)
        GROUP BY 1
        UNION ALL
        SELECT date_bin(step_, t.ts, 'epoch'), OF_READINGS
        FROM pieces p JOIN telemetry t ON t.device_key = p.device_key AND t.ts >= p.lo AND t.ts < p.hi
        GROUP BY 1
    ), buckets AS (
        SELECT bucket, 0 AS taken, OF_PARTS FROM parts GROUP BY bucket
    )
    SERIES
$part$;
BEGIN
    FOR one IN SELECT * FROM (VALUES
        ('series_of_readings', from_readings, '', ''),
        ('series_of_minutes', from_rollup, 'minute_rollup', '1 minute'),
        ('series_of_hours', from_rollup, 'hour_rollup', '1 hour')
    ) AS forms (name, query, rollup, unit) LOOP
        body := replace(replace(replace(one.query, 'SERIES', series), 'ROLLUP r', one.rollup || ' r'),
                        'UNIT', one.unit);
        SELECT replace(replace(replace(replace(body,
            'OF_READINGS', string_agg(replace(
                'count({m}) AS {m}_n, sum({m}::double precision) AS {m}_sum, '
                'min({m})::real AS {m}_min, max({m})::real AS {m}_max', '{m}', m), ', ')),
            'OF_ROLLUP', string_agg(replace(
                'sum({m}_n) AS {m}_n, sum({m}_n * {m}_mean) AS {m}_sum, '
                'min({m}_min) AS {m}_min, max({m}_max) AS {m}_max', '{m}', m), ', ')),
            'OF_PARTS', string_agg(replace(
                'sum({m}_n)::bigint AS {m}_n, sum({m}_sum) AS {m}_sum, '
                'min({m}_min) AS {m}_min, max({m}_max) AS {m}_max', '{m}', m), ', ')),
            'ROWS', string_agg(replace(
                '(''{m}'', b.{m}_n, b.{m}_sum / nullif(b.{m}_n, 0), b.{m}_min, b.{m}_max)',
                '{m}', m), ', '))
        INTO body FROM unnest(metrics) AS m;
        EXECUTE format($def$
            CREATE FUNCTION %1$I(resident_ bigint, begins_ timestamptz, ends_ timestamptz,
                                 step_ interval, most_ integer, most_readings_ integer)
            RETURNS TABLE (metric text, points bigint, readings bigint, series text)
            LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS %2$L;
            ALTER FUNCTION %1$I OWNER TO anxin_gate;
            REVOKE ALL ON FUNCTION %1$I FROM PUBLIC;
            GRANT EXECUTE ON FUNCTION %1$I TO anxin_api$def$,
            one.name, format('#variable_conflict use_column
BEGIN
    IF sees_vitals(resident_) THEN
        RETURN QUERY %s;
    END IF;
END', body));
    END LOOP;
END $make$;

-- The first user of all is made by who migrates.
CREATE POLICY owner_all ON users FOR ALL TO anxin_owner USING (true);
CREATE POLICY owner_all ON schema_migrations FOR ALL TO anxin_owner USING (true);

ALTER TABLE role_rights OWNER TO anxin_owner;
ALTER TABLE role_rights ENABLE ROW LEVEL SECURITY;
ALTER TABLE role_rights FORCE ROW LEVEL SECURITY;
ALTER FUNCTION record_change(alarms, text, bigint, text, text, text, boolean) OWNER TO anxin_owner;
REVOKE CREATE ON SCHEMA public FROM anxin_gate;
