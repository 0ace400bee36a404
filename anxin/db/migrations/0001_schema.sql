-- People, places, devices, readings, alarms. Storage of telemetry follows in 0002.

-- A number that grows with every committed change, so that a reader can ask for "what changed since":
-- rows carry the id of the transaction that wrote them, and the reader remembers the oldest
-- transaction that was still running when it last looked. A late commit is never skipped.

CREATE TABLE places (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent_id   bigint REFERENCES places ON DELETE RESTRICT,
    kind        text NOT NULL CHECK (kind IN
                    ('district', 'town', 'village', 'facility', 'home', 'room', 'bed')),
    name        text NOT NULL CHECK (name <> ''),
    path        text NOT NULL DEFAULT '' UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN places.path IS 'Ids from the root to this place, as /1/5/9/; a subtree is a prefix.';
CREATE INDEX places_subtree ON places (path text_pattern_ops);
CREATE INDEX places_children ON places (parent_id);

CREATE FUNCTION place_path() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.path := coalesce((SELECT path FROM places WHERE id = NEW.parent_id), '/') || NEW.id || '/';
    RETURN NEW;
END $$;
CREATE TRIGGER place_path BEFORE INSERT ON places FOR EACH ROW EXECUTE FUNCTION place_path();

CREATE TABLE residents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL CHECK (name <> ''),
    sex         text NOT NULL DEFAULT 'unknown' CHECK (sex IN ('female', 'male', 'unknown')),
    born        date,
    place_id    bigint NOT NULL REFERENCES places ON DELETE RESTRICT,
    care_level  smallint CHECK (care_level BETWEEN 0 AND 4),
    fall_risk   boolean NOT NULL DEFAULT false,
    wander_risk boolean NOT NULL DEFAULT false,
    spo2_scale  smallint NOT NULL DEFAULT 1 CHECK (spo2_scale IN (1, 2)),
    limits      jsonb NOT NULL DEFAULT '{}',
    note        text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN residents.limits IS 'Alarm limits that differ from the defaults, by the names in anxin/rules.py.';
CREATE INDEX residents_place ON residents (place_id);

CREATE TABLE users (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    username      text NOT NULL CHECK (username ~ '^[^\s]{1,64}$'),
    password_hash text NOT NULL,
    role          text NOT NULL CHECK (role IN
                      ('admin', 'supervisor', 'nurse', 'family', 'integrator')),
    place_id      bigint REFERENCES places ON DELETE RESTRICT,
    disabled_at   timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_name ON users (lower(username));

CREATE TABLE sessions (
    token_hash  bytea PRIMARY KEY,
    user_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE login_attempts (
    username    text NOT NULL,
    address     text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX login_attempts_recent ON login_attempts (username, at);
COMMENT ON TABLE login_attempts IS 'Failed logins of the last hour; more than a few slow the next ones down.';

CREATE TABLE family_links (
    user_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    resident_id bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    scopes      text[] NOT NULL DEFAULT '{status}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, resident_id)
);
CREATE INDEX family_links_resident ON family_links (resident_id);

CREATE TABLE devices (
    key         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id          text NOT NULL UNIQUE CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    kind        text NOT NULL CHECK (kind IN
                    ('bed_sensor', 'wearable', 'call_button', 'cuff', 'thermometer', 'scale',
                     'oximeter', 'radar', 'smoke', 'door', 'gateway', 'other')),
    name        text NOT NULL DEFAULT '',
    place_id    bigint REFERENCES places ON DELETE RESTRICT,
    salt        bytea NOT NULL,
    secret_hash bytea NOT NULL,
    revoked_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX devices_place ON devices (place_id);

CREATE TABLE assignments (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_key  integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    resident_id bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    during      tstzrange NOT NULL CHECK (NOT isempty(during)),
    -- A one-number range stands for equality: it needs no extension, unlike GiST on plain integers.
    CONSTRAINT one_resident_at_a_time
        EXCLUDE USING gist (int4range(device_key, device_key, '[]') WITH &&, during WITH &&)
);
CREATE INDEX assignments_resident ON assignments (resident_id);
CREATE INDEX assignments_device ON assignments (device_key);

CREATE TABLE device_states (
    device_key  integer PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
    online      boolean,
    changed_at  timestamptz,
    heard_at    timestamptz,
    battery     real,
    rssi        real,
    firmware    text
) WITH (fillfactor = 50);
COMMENT ON COLUMN device_states.heard_at IS 'Last sign of life of any kind; absent means never heard from.';

CREATE TABLE latest (
    device_key  integer PRIMARY KEY REFERENCES devices ON DELETE CASCADE,
    ts          timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    active_at   timestamptz,
    absent_since timestamptz,
    present_since timestamptz,
    metrics     jsonb NOT NULL
) WITH (fillfactor = 40);
COMMENT ON COLUMN latest.metrics IS 'Newest value of each metric: {"hr": [72, epoch milliseconds], ...}.';

-- Merges newest values metric by metric; used when a reading arrives out of order.
CREATE FUNCTION newest_metrics(a jsonb, b jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM (
        SELECT DISTINCT ON (key) key, value
        FROM (SELECT * FROM jsonb_each(a) UNION ALL SELECT * FROM jsonb_each(b)) AS both_sides
        ORDER BY key, (value ->> 1)::bigint DESC
    ) AS newest
$$;

CREATE TABLE events (
    device_key  integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    id          text NOT NULL,
    type        text NOT NULL,
    ts          timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    flags       smallint NOT NULL DEFAULT 0,
    detail      jsonb,
    PRIMARY KEY (device_key, id)
);
CREATE INDEX events_time ON events (device_key, ts);

CREATE TABLE commands (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_key   integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    name         text NOT NULL,
    args         jsonb NOT NULL DEFAULT '{}',
    created_by   bigint REFERENCES users ON DELETE SET NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    ok           boolean,
    result       jsonb,
    finished_at  timestamptz
);
CREATE INDEX commands_waiting ON commands (device_key) WHERE delivered_at IS NULL;

CREATE TABLE quarantine (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_at timestamptz NOT NULL,
    device_id   text NOT NULL,
    kind        text NOT NULL,
    reason      text NOT NULL,
    size        integer NOT NULL,
    payload     bytea NOT NULL
);
CREATE INDEX quarantine_time ON quarantine (received_at);
CREATE INDEX quarantine_device ON quarantine (device_id, id);
COMMENT ON COLUMN quarantine.payload IS 'As received; of one over 64 KiB the first 64 KiB.';

CREATE TABLE alarms (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject      text NOT NULL,
    resident_id  bigint REFERENCES residents ON DELETE CASCADE,
    place_id     bigint REFERENCES places ON DELETE RESTRICT,
    device_key   integer REFERENCES devices ON DELETE SET NULL,
    kind         text NOT NULL,
    class        text NOT NULL CHECK (class IN
                     ('emergency', 'physiological', 'behavioural', 'safety', 'technical')),
    priority     smallint NOT NULL CHECK (priority BETWEEN 1 AND 3),
    condition    text NOT NULL DEFAULT 'present' CHECK (condition IN ('present', 'recovered')),
    handling     text NOT NULL DEFAULT 'open' CHECK (handling IN
                     ('open', 'acknowledged', 'on_site', 'closed')),
    outcome      text CHECK (outcome IN ('real', 'false', 'test', 'unknown')),
    count        integer NOT NULL DEFAULT 1 CHECK (count > 0),
    raised_at    timestamptz NOT NULL,
    last_at      timestamptz NOT NULL,
    event_at     timestamptz NOT NULL,
    late         boolean NOT NULL DEFAULT false,
    owner_id     bigint REFERENCES users ON DELETE SET NULL,
    snoozed_until timestamptz,
    closed_at    timestamptz,
    detail       jsonb NOT NULL DEFAULT '{}',
    CHECK ((handling = 'closed') = (outcome IS NOT NULL)),
    CHECK ((handling = 'closed') = (closed_at IS NOT NULL))
);
COMMENT ON COLUMN alarms.subject IS 'Whom it is about: r<resident>, or p<place>, or d<device key>.';
COMMENT ON COLUMN alarms.priority IS '3 high, 2 medium, 1 low.';
CREATE UNIQUE INDEX alarms_one_open_episode ON alarms (subject, kind) WHERE handling <> 'closed';
CREATE INDEX alarms_resident ON alarms (resident_id, id);
CREATE INDEX alarms_place ON alarms (place_id, id);
CREATE INDEX alarms_open ON alarms (id) WHERE handling <> 'closed';

CREATE TABLE timeline (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm_id    bigint NOT NULL REFERENCES alarms ON DELETE CASCADE,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    change      text NOT NULL,
    actor_id    bigint REFERENCES users ON DELETE SET NULL,
    actor       text NOT NULL,
    channel     text NOT NULL,
    note        text,
    alarm       jsonb NOT NULL,
    cursor      bigint UNIQUE
);
COMMENT ON COLUMN timeline.alarm IS 'The alarm as this change left it; a stream replays exactly this.';
COMMENT ON COLUMN timeline.cursor IS 'Place in the stream, given after the commit by advance_stream().';
CREATE INDEX timeline_alarm ON timeline (alarm_id, id);
CREATE INDEX timeline_unsequenced ON timeline (id) WHERE cursor IS NULL;

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    timeline_id bigint NOT NULL REFERENCES timeline ON DELETE CASCADE,
    alarm_id    bigint NOT NULL REFERENCES alarms ON DELETE CASCADE,
    channel     text NOT NULL,
    due_at      timestamptz NOT NULL DEFAULT now(),
    sent_at     timestamptz,
    displayed_at timestamptz,
    UNIQUE (timeline_id, channel)
);
CREATE INDEX outbox_alarm ON outbox (alarm_id);
CREATE INDEX outbox_waiting ON outbox (due_at) WHERE sent_at IS NULL;

CREATE TABLE receipts (
    alarm_id    bigint NOT NULL REFERENCES alarms ON DELETE CASCADE,
    user_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('received', 'displayed')),
    cursor      bigint NOT NULL DEFAULT 0,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (alarm_id, user_id, kind, cursor)
);

CREATE TABLE tickets (
    token_hash  bytea PRIMARY KEY,
    session_hash bytea NOT NULL REFERENCES sessions ON DELETE CASCADE,
    expires_at  timestamptz NOT NULL
);

-- The alarm as the outside world sees it, without the actions of a particular viewer.
CREATE FUNCTION alarm_object(a alarms) RETURNS jsonb LANGUAGE sql STABLE
SET timezone = 'UTC' AS $$
    SELECT jsonb_build_object(
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
        'detail', a.detail)
$$;

-- Writes the line of the timeline that belongs to a change just made, and its notice.
CREATE FUNCTION record_change(
    a alarms, change text, actor_id bigint, actor text, channel text, note text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE line bigint;
BEGIN
    INSERT INTO timeline (alarm_id, change, actor_id, actor, channel, note, alarm)
    VALUES (a.id, change, actor_id, actor, channel, note, alarm_object(a))
    RETURNING id INTO line;
    IF change IN ('raised', 'priority') THEN
        INSERT INTO outbox (timeline_id, alarm_id, channel) VALUES (line, a.id, 'station');
    END IF;
    NOTIFY anxin_alarm;
END $$;

-- The one way in which an alarm comes to be. Of any number of writers at the same moment one
-- raises the episode and the others are its repeats. Returns what happened.
CREATE FUNCTION raise_alarm(
    subject_ text, resident_ bigint, place_ bigint, device_ integer, kind_ text, class_ text,
    priority_ smallint, event_at_ timestamptz, late_ boolean, count_ integer, detail_ jsonb,
    actor_ text
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    a alarms;
    was smallint;
    change text;
BEGIN
    LOOP
        SELECT * INTO a FROM alarms
        WHERE subject = subject_ AND kind = kind_ AND handling <> 'closed' FOR UPDATE;
        IF FOUND THEN
            was := a.priority;
            UPDATE alarms SET
                count = count + count_,
                last_at = greatest(last_at, clock_timestamp()),
                priority = greatest(priority, priority_),
                condition = 'present',
                detail = CASE WHEN priority_ >= was THEN detail || detail_ ELSE detail END
            WHERE id = a.id RETURNING * INTO a;
            change := CASE WHEN a.priority > was THEN 'priority' ELSE 'repeated' END;
        ELSE
            INSERT INTO alarms (subject, resident_id, place_id, device_key, kind, class, priority,
                                raised_at, last_at, event_at, late, count, detail)
            VALUES (subject_, resident_, place_, device_, kind_, class_, priority_,
                    clock_timestamp(), clock_timestamp(), event_at_, late_, count_, detail_)
            ON CONFLICT (subject, kind) WHERE handling <> 'closed' DO NOTHING
            RETURNING * INTO a;
            -- Another writer was first: its episode is there now, or already closed again.
            CONTINUE WHEN NOT FOUND;
            change := 'raised';
        END IF;
        PERFORM record_change(a, change, NULL, actor_, 'rule');
        RETURN change;
    END LOOP;
END $$;

CREATE FUNCTION recover_alarm(subject_ text, kind_ text, actor_ text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE a alarms;
BEGIN
    UPDATE alarms SET condition = 'recovered'
    WHERE subject = subject_ AND kind = kind_ AND handling <> 'closed' AND condition = 'present'
    RETURNING * INTO a;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM record_change(a, 'recovered', NULL, actor_, 'rule');
    RETURN true;
END $$;

-- Gives committed changes their place in the stream. It is called as a statement of its own, so
-- the lock is held by the server only and no stopped client can keep it. A change that commits
-- late gets a later place: no cursor ever passes it by.
CREATE FUNCTION advance_stream() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE last_cursor bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(4155021);
    SELECT coalesce(max(cursor), 0) INTO last_cursor FROM timeline;
    WITH waiting AS (
        SELECT id, last_cursor + row_number() OVER (ORDER BY id) AS place
        FROM timeline WHERE cursor IS NULL
    )
    UPDATE timeline t SET cursor = w.place FROM waiting w WHERE t.id = w.id;
    SELECT coalesce(max(cursor), 0) INTO last_cursor FROM timeline;
    RETURN last_cursor;
END $$;

-- What ingest keeps in memory about devices is renewed from this list.
CREATE TABLE device_changes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    written_by  xid8 NOT NULL DEFAULT pg_current_xact_id(),
    device_key  integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX device_changes_transaction ON device_changes (written_by);

CREATE FUNCTION device_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE row_ jsonb := to_jsonb(coalesce(NEW, OLD));
BEGIN
    INSERT INTO device_changes (device_key)
    SELECT (row_ ->> 'key')::integer WHERE TG_TABLE_NAME = 'devices'
    UNION SELECT (row_ ->> 'device_key')::integer WHERE TG_TABLE_NAME = 'assignments'
    UNION SELECT a.device_key FROM assignments a
          WHERE TG_TABLE_NAME = 'residents' AND a.resident_id = (row_ ->> 'id')::bigint
            AND upper_inf(a.during);
    NOTIFY anxin_device;
    RETURN NULL;
END $$;
CREATE TRIGGER device_changed AFTER INSERT OR UPDATE OR DELETE ON devices
    FOR EACH ROW EXECUTE FUNCTION device_changed();
CREATE TRIGGER device_changed AFTER INSERT OR UPDATE OR DELETE ON assignments
    FOR EACH ROW EXECUTE FUNCTION device_changed();
CREATE TRIGGER device_changed AFTER UPDATE ON residents
    FOR EACH ROW EXECUTE FUNCTION device_changed();

CREATE FUNCTION command_waits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY anxin_command;
    RETURN NULL;
END $$;
CREATE TRIGGER command_waits AFTER INSERT ON commands
    FOR EACH STATEMENT EXECUTE FUNCTION command_waits();

-- Minutes whose rollup does not yet hold all their readings. Readers take these minutes from the
-- readings themselves; the worker rolls them up and removes them, both in one transaction.
CREATE TABLE rollup_due (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_key  integer NOT NULL,
    minute      timestamptz NOT NULL,
    marked_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX rollup_due_minute ON rollup_due (device_key, minute);
