-- Who must be told of an alarm, when, by which way, and what became of it.

-- Who is on duty. A stand-in takes the post of `stands_in_for` for the time of the shift.
CREATE TABLE shifts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    place_id      bigint NOT NULL REFERENCES places ON DELETE CASCADE,
    user_id       bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    post          text NOT NULL CHECK (post IN ('first', 'second', 'supervisor')),
    during        tstzrange NOT NULL CHECK (NOT isempty(during)),
    stands_in_for bigint REFERENCES users ON DELETE SET NULL,
    note          text NOT NULL DEFAULT ''
);
CREATE INDEX shifts_place ON shifts (place_id, upper(during));
CREATE INDEX shifts_user ON shifts (user_id);

-- How a person, or an office of a place (a robot of the staff group, a rescue point), is reached.
CREATE TABLE contacts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id       bigint REFERENCES users ON DELETE CASCADE,
    place_id      bigint REFERENCES places ON DELETE CASCADE,
    office        text CHECK (office IN ('robot', 'rescue_point', 'rescue_centre', 'supervisor')),
    channel       text NOT NULL,
    address       text NOT NULL,
    secret        text NOT NULL DEFAULT '',
    enabled       boolean NOT NULL DEFAULT true,
    failures      integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    alarmed_at    timestamptz,
    last_ok_at    timestamptz,
    last_error    text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK ((user_id IS NULL) <> (place_id IS NULL)),
    CHECK ((place_id IS NULL) = (office IS NULL))
);
CREATE INDEX contacts_user ON contacts (user_id);
CREATE INDEX contacts_place ON contacts (place_id);

-- The ladder of a place for a priority and a time of day; the nearest place above has its say, and
-- without any the defaults of anxin/escalation.py stand.
CREATE TABLE ladders (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    place_id      bigint NOT NULL REFERENCES places ON DELETE CASCADE,
    priority      smallint NOT NULL CHECK (priority BETWEEN 1 AND 3),
    from_minute   smallint NOT NULL DEFAULT 0 CHECK (from_minute BETWEEN 0 AND 1439),
    to_minute     smallint NOT NULL DEFAULT 1440 CHECK (to_minute BETWEEN 1 AND 1440),
    lease_seconds integer NOT NULL DEFAULT 600 CHECK (lease_seconds BETWEEN 60 AND 86400),
    steps         jsonb NOT NULL,
    UNIQUE (place_id, priority, from_minute)
);
COMMENT ON COLUMN ladders.steps IS
    '[{"after_seconds": 0, "audience": "first", "channels": ["station"]}, ...] in order of time.';
COMMENT ON COLUMN ladders.to_minute IS 'Not after from_minute: the ladder holds through midnight.';

-- The timer of each alarm that is not closed: which step is due next, and when. Any worker sweeps it.
CREATE TABLE escalations (
    alarm_id      bigint PRIMARY KEY REFERENCES alarms ON DELETE CASCADE,
    round         integer NOT NULL DEFAULT 1,
    priority      smallint NOT NULL,
    began_at      timestamptz NOT NULL,
    next_step     integer NOT NULL DEFAULT 0,
    due_at        timestamptz,
    lease_seconds integer NOT NULL,
    lease_until   timestamptz
);
COMMENT ON COLUMN escalations.round IS 'Grows when the ladder begins again: a lease ran out, the priority rose.';
COMMENT ON COLUMN escalations.priority IS 'Whose ladder this round climbs; a fall of the alarm does not stop it.';
COMMENT ON COLUMN escalations.due_at IS 'Never NULL while the alarm is open, always while somebody has it.';
COMMENT ON COLUMN escalations.lease_until IS 'Until when an acknowledged alarm waits for arrival or outcome.';
CREATE INDEX escalations_due ON escalations (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX escalations_lease ON escalations (lease_until) WHERE lease_until IS NOT NULL;

-- Every notice to every person, by every way; `key` makes a second attempt the same notice.
CREATE TABLE deliveries (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key           text NOT NULL UNIQUE,
    alarm_id      bigint REFERENCES alarms ON DELETE CASCADE,
    round         integer NOT NULL DEFAULT 1,
    step          integer NOT NULL DEFAULT 0,
    audience      text NOT NULL,
    user_id       bigint REFERENCES users ON DELETE CASCADE,
    contact_id    bigint REFERENCES contacts ON DELETE SET NULL,
    channel       text NOT NULL,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN
                      ('pending', 'sent', 'delivered', 'displayed', 'acknowledged',
                       'failed', 'cancelled')),
    due_at        timestamptz NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    claimed_by    integer,
    created_at    timestamptz NOT NULL DEFAULT now(),
    sent_at       timestamptz,
    delivered_at  timestamptz,
    displayed_at  timestamptz,
    deadline_at   timestamptz,
    provider_id   text,
    error         text
);
CREATE INDEX deliveries_alarm ON deliveries (alarm_id);
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state = 'pending';
CREATE INDEX deliveries_deadline ON deliveries (deadline_at) WHERE deadline_at IS NOT NULL;
CREATE INDEX deliveries_contact ON deliveries (contact_id, sent_at);
COMMENT ON COLUMN deliveries.claimed_by IS
    'The worker that sends it now; it holds the advisory lock (4155023, this number) while it lives.';
CREATE INDEX deliveries_provider ON deliveries (channel, provider_id) WHERE provider_id IS NOT NULL;
COMMENT ON COLUMN deliveries.deadline_at IS 'Without a receipt by then the next way is tried.';

-- What each station screen says of itself: sound, display, last sign.
CREATE TABLE stations (
    user_id       bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    screen        text NOT NULL,
    place_id      bigint REFERENCES places ON DELETE CASCADE,
    seen_at       timestamptz NOT NULL,
    sound         text NOT NULL DEFAULT 'unknown' CHECK (sound IN ('on', 'muted', 'unknown')),
    visible       boolean NOT NULL DEFAULT true,
    proved_at     timestamptz,
    on_duty       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (user_id, screen)
);
COMMENT ON COLUMN stations.proved_at IS 'When sound was last heard by its own loopback or confirmed.';

-- The synthetic SOS: one line per run, from the event to the screen.
CREATE TABLE self_tests (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    place_id      bigint REFERENCES places ON DELETE CASCADE,
    started_at    timestamptz NOT NULL DEFAULT now(),
    alarm_id      bigint REFERENCES alarms ON DELETE SET NULL,
    displayed_at  timestamptz,
    failed        text
);
CREATE INDEX self_tests_place ON self_tests (place_id, started_at);

-- How often a device that sleeps between readings usually reports.
ALTER TABLE device_states ADD COLUMN usual_interval_seconds real;
ALTER TABLE devices ADD COLUMN gateway_key integer REFERENCES devices ON DELETE SET NULL;
