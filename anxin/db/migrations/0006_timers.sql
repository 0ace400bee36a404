-- Timers live and die with the alarm's own row: a trigger keeps them, so that no path forgets them.

-- When the present priority was last called for: it falls only after a calmer while.
ALTER TABLE alarms ADD COLUMN severe_at timestamptz NOT NULL DEFAULT clock_timestamp();

-- Seconds that an acknowledgement lasts until a ladder says otherwise; as in anxin/escalation.py.
CREATE FUNCTION usual_lease_seconds(priority smallint) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY[28800, 1800, 600])[priority]
$$;

-- The self-test of the alarm's way has nobody to wake.
CREATE FUNCTION is_escalated(a alarms) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT a.handling <> 'closed' AND NOT a.detail @> '{"selftest": true}'
$$;

-- Begins the ladder of an alarm, or begins it again. A round never has the number of one before,
-- even when the timer itself was lost: its deliveries would be taken for those of then.
CREATE FUNCTION begin_timer(a alarms) RETURNS void LANGUAGE sql AS $$
    INSERT INTO escalations AS e
        (alarm_id, round, priority, began_at, due_at, lease_seconds, lease_until)
    SELECT a.id,
           1 + coalesce((SELECT max(d.round) FROM deliveries d WHERE d.alarm_id = a.id), 0),
           a.priority, t.now,
           -- An alarm that rests goes on resting when its lost timer is given back.
           CASE WHEN a.handling = 'open' THEN greatest(t.now, a.snoozed_until) END,
           usual_lease_seconds(a.priority),
           CASE WHEN a.handling = 'acknowledged'
                THEN t.now + usual_lease_seconds(a.priority) * interval '1 second' END
    FROM (SELECT clock_timestamp() AS now) AS t
    WHERE is_escalated(a)
    ON CONFLICT (alarm_id) DO UPDATE SET
        round = e.round + 1,
        priority = excluded.priority,
        began_at = excluded.began_at,
        next_step = 0,
        due_at = excluded.due_at,
        lease_seconds = excluded.lease_seconds,
        lease_until = excluded.lease_until
$$;

CREATE FUNCTION keep_timer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        PERFORM begin_timer(NEW);
        RETURN NULL;
    END IF;
    IF NEW.handling = 'closed' THEN
        DELETE FROM escalations WHERE alarm_id = NEW.id;
    ELSIF NEW.handling = 'on_site' THEN
        UPDATE escalations SET due_at = NULL, lease_until = NULL WHERE alarm_id = NEW.id;
    ELSIF NEW.handling = 'acknowledged' THEN
        UPDATE escalations SET due_at = NULL, lease_until = greatest(
            NEW.snoozed_until,
            CASE WHEN OLD.handling = 'acknowledged' THEN lease_until
                 ELSE clock_timestamp() + lease_seconds * interval '1 second' END)
        WHERE alarm_id = NEW.id;
    ELSIF NEW.snoozed_until > clock_timestamp() THEN
        UPDATE escalations SET due_at = NEW.snoozed_until, lease_until = NULL
        WHERE alarm_id = NEW.id;
    ELSIF OLD.handling <> 'open' OR NEW.priority > OLD.priority
          OR OLD.snoozed_until IS DISTINCT FROM NEW.snoozed_until THEN
        PERFORM begin_timer(NEW);
    END IF;
    -- What waits to be sent would call people to an alarm that somebody has, or that rests.
    IF NEW.handling <> 'open' OR NEW.snoozed_until > clock_timestamp() THEN
        UPDATE deliveries SET state = 'cancelled' WHERE alarm_id = NEW.id AND state = 'pending';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER begin_timer AFTER INSERT ON alarms FOR EACH ROW EXECUTE FUNCTION keep_timer();
CREATE TRIGGER keep_timer AFTER UPDATE ON alarms FOR EACH ROW
    WHEN (OLD.handling IS DISTINCT FROM NEW.handling
          OR OLD.priority IS DISTINCT FROM NEW.priority
          OR OLD.snoozed_until IS DISTINCT FROM NEW.snoozed_until)
    EXECUTE FUNCTION keep_timer();

-- As before, with the two delays: from the event to the alarm, and from there to the first screen.
CREATE OR REPLACE FUNCTION alarm_object(a alarms) RETURNS jsonb LANGUAGE sql STABLE
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
        'condition_delay_s', round(extract(epoch FROM greatest(a.raised_at - a.event_at, '0')), 3),
        'signal_delay_s', (
            SELECT round(extract(epoch FROM greatest(min(r.at) - a.raised_at, '0')), 3)
            FROM receipts r WHERE r.alarm_id = a.id AND r.kind = 'displayed'),
        'detail', a.detail)
$$;

-- As before. A higher priority counts at once: it ends a snooze, and whoever has taken the alarm
-- is asked again. A lower one counts, one level at a time, when nothing has called for the present
-- one for 10 minutes; an emergency or safety alarm never falls.
CREATE OR REPLACE FUNCTION raise_alarm(
    subject_ text, resident_ bigint, place_ bigint, device_ integer, kind_ text, class_ text,
    priority_ smallint, event_at_ timestamptz, late_ boolean, count_ integer, detail_ jsonb,
    actor_ text
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    a alarms;
    was smallint;
    rises boolean;
    falls boolean;
    change text;
BEGIN
    LOOP
        SELECT * INTO a FROM alarms
        WHERE subject = subject_ AND kind = kind_ AND handling <> 'closed' FOR UPDATE;
        IF FOUND THEN
            was := a.priority;
            rises := priority_ > was;
            falls := priority_ < was AND a.class NOT IN ('emergency', 'safety')
                     AND a.severe_at <= clock_timestamp() - interval '10 minutes';
            UPDATE alarms SET
                count = count + count_,
                last_at = greatest(last_at, clock_timestamp()),
                priority = CASE WHEN rises THEN priority_ WHEN falls THEN was - 1 ELSE was END,
                severe_at = CASE WHEN priority_ >= was OR falls THEN clock_timestamp()
                                 ELSE severe_at END,
                handling = CASE WHEN rises AND handling = 'acknowledged' THEN 'open'
                                ELSE handling END,
                snoozed_until = CASE WHEN NOT rises THEN snoozed_until END,
                condition = 'present',
                detail = CASE WHEN priority_ >= was OR falls THEN detail || detail_
                              ELSE detail END
            WHERE id = a.id RETURNING * INTO a;
            change := CASE WHEN a.priority <> was THEN 'priority' ELSE 'repeated' END;
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

-- As before; a low technical alarm that nobody has taken ends with its condition, by policy.
CREATE OR REPLACE FUNCTION recover_alarm(subject_ text, kind_ text, actor_ text)
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
    UPDATE alarms SET handling = 'closed', outcome = 'unknown', closed_at = clock_timestamp()
    WHERE id = a.id AND handling = 'open' AND class = 'technical' AND priority = 1
    RETURNING * INTO a;
    IF FOUND THEN
        PERFORM record_change(a, 'closed', NULL, 'policy', 'rule', 'recovered');
    END IF;
    RETURN true;
END $$;

-- Carries out what anxin/escalation.py planned for timers that came due. Several workers may have
-- planned the same: a plan holds only for the timer as it was read, the others' plans do nothing.
-- One statement, so no stopped worker keeps a lock, and nothing in it waits for a lock.
CREATE FUNCTION escalate(plans jsonb) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb;
    line jsonb;
    a alarms;
    done bigint[] := '{}';
BEGIN
    FOR plan IN SELECT value FROM jsonb_array_elements(plans) LOOP
        SELECT * INTO a FROM alarms WHERE id = (plan ->> 'alarm_id')::bigint
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        PERFORM 1 FROM escalations e
        WHERE e.alarm_id = a.id AND e.round = (plan ->> 'round')::integer
          AND e.next_step = (plan ->> 'step')::integer
          AND e.due_at IS NOT DISTINCT FROM (plan ->> 'due_at')::timestamptz
          AND e.lease_until IS NOT DISTINCT FROM (plan ->> 'lease_until')::timestamptz
        FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        CASE plan ->> 'does'
        WHEN 'lease_expired' THEN
            UPDATE alarms SET handling = 'open', snoozed_until = NULL
            WHERE id = a.id AND handling = 'acknowledged' RETURNING * INTO a;
        WHEN 'snooze_over' THEN
            UPDATE alarms SET snoozed_until = NULL
            WHERE id = a.id AND handling = 'open' AND snoozed_until IS NOT NULL RETURNING * INTO a;
        ELSE
            UPDATE escalations SET
                round = (plan ->> 'to_round')::integer,
                priority = (plan ->> 'to_priority')::smallint,
                began_at = (plan ->> 'to_began_at')::timestamptz,
                next_step = (plan ->> 'to_step')::integer,
                due_at = (plan ->> 'to_due_at')::timestamptz,
                lease_seconds = (plan ->> 'lease_seconds')::integer
            WHERE alarm_id = a.id AND a.handling = 'open';
        END CASE;
        CONTINUE WHEN NOT FOUND;
        INSERT INTO deliveries
            (key, alarm_id, round, step, audience, user_id, contact_id, channel, due_at)
        SELECT d.key, a.id, d.round, d.step, d.audience, d.user_id, d.contact_id, d.channel, d.due_at
        FROM jsonb_to_recordset(plan -> 'deliveries') AS d
            (key text, round integer, step integer, audience text, user_id bigint,
             contact_id bigint, channel text, due_at timestamptz)
        -- Who was deleted since the plan was made gets nothing, and stops nobody.
        WHERE (d.user_id IS NULL OR EXISTS (SELECT 1 FROM users u WHERE u.id = d.user_id))
          AND (d.contact_id IS NULL OR EXISTS (SELECT 1 FROM contacts c WHERE c.id = d.contact_id))
        ON CONFLICT (key) DO NOTHING;
        FOR line IN SELECT value FROM jsonb_array_elements(plan -> 'lines') LOOP
            PERFORM record_change(
                a, line ->> 'change', NULL, 'escalation', 'timer', line ->> 'note');
        END LOOP;
        done := done || a.id;
    END LOOP;
    RETURN done;
END $$;

-- Gives a timer back to every alarm that has neither a living one nor a living owner. A timer that
-- began in the future tells of a clock that was set back: it would be late by as much.
CREATE FUNCTION rescue_alarms() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    found record;
    a alarms;
    rescued integer := 0;
BEGIN
    FOR found IN
        SELECT x.id, CASE WHEN x.handling <> 'open' AND u.id IS NULL THEN 'no owner'
                          WHEN e.alarm_id IS NULL THEN 'no timer'
                          ELSE 'timer stopped' END AS why
        FROM alarms x
        LEFT JOIN escalations e ON e.alarm_id = x.id
        LEFT JOIN users u ON u.id = x.owner_id AND u.disabled_at IS NULL
        WHERE x.handling <> 'closed' AND is_escalated(x)
          AND (e.alarm_id IS NULL
               OR x.handling <> 'open' AND u.id IS NULL
               OR x.handling = 'open'
                  AND (e.due_at IS NULL OR e.began_at > clock_timestamp() + interval '5 seconds')
               OR x.handling = 'acknowledged' AND coalesce(e.lease_until > interval '5 seconds'
                  + greatest(clock_timestamp() + e.lease_seconds * interval '1 second',
                             x.snoozed_until), true))
        ORDER BY x.priority DESC, x.id LIMIT 500
        FOR UPDATE OF x SKIP LOCKED
    LOOP
        UPDATE alarms SET
            handling = CASE WHEN found.why = 'no owner' THEN 'open' ELSE handling END,
            owner_id = CASE WHEN found.why <> 'no owner' THEN owner_id END
        WHERE id = found.id RETURNING * INTO a;
        -- An alarm without an owner got its timer from the trigger, as it is open again.
        IF found.why <> 'no owner' THEN
            PERFORM begin_timer(a);
        END IF;
        PERFORM record_change(a, 'rescued', NULL, 'watchdog', 'timer', found.why);
        rescued := rescued + 1;
    END LOOP;
    RETURN rescued;
END $$;

-- Alarms that were open before there were timers.
SELECT begin_timer(a) FROM alarms a WHERE is_escalated(a);
