-- One fault, one episode; a storm of repeats that holds nobody up; self-tests that leave nothing.

-- A fault of a place is an episode of its own for each reason: p<place>:<reason>, and for a way of
-- reaching people p<place>:channel_failing:<channel>. What was told in one episode so far goes on
-- as what it told last; the others are found and told anew while they last.
COMMENT ON COLUMN alarms.subject IS
    'Whom it is about: r<resident>, or p<place>, or d<device key>; for a fault p<place>:<reason>.';
WITH merged AS (
    SELECT id, place_id, detail FROM alarms
    WHERE kind = 'device_fault' AND handling <> 'closed'
      AND subject ~ '^p[0-9]+$' AND detail ? 'reason'
), told_again AS (
    -- Somebody else's reason stands over the news that this way fails: its next failure is told.
    UPDATE contacts c SET alarmed_at = NULL
    FROM merged m, contacts same LEFT JOIN users u ON u.id = same.user_id
    WHERE c.id = same.id AND c.alarmed_at IS NOT NULL
      AND coalesce(same.place_id, u.place_id) = m.place_id
      AND m.detail ? 'contact_id'
      AND (m.detail ->> 'reason', m.detail ->> 'channel')
          IS DISTINCT FROM ('channel_failing', c.channel)
)
UPDATE alarms a SET
    subject = concat_ws(':', a.subject, a.detail ->> 'reason',
                        CASE WHEN a.detail ->> 'reason' = 'channel_failing'
                             THEN a.detail ->> 'channel' END),
    detail = CASE a.detail ->> 'reason'
        WHEN 'channel_failing' THEN a.detail - ARRAY['stations', 'step', 'contact_id']
             || jsonb_build_object('contact_ids', jsonb_build_array(a.detail -> 'contact_id'))
        WHEN 'selftest_failed' THEN a.detail - ARRAY['stations', 'channel', 'contact_id']
        WHEN 'nobody_reachable' THEN a.detail - ARRAY['stations', 'step', 'channel', 'contact_id']
        ELSE a.detail - ARRAY['step', 'channel', 'contact_id'] END
FROM merged m WHERE m.id = a.id;

-- As before; a change may be written without a ring.
DROP FUNCTION record_change(alarms, text, bigint, text, text, text);
CREATE FUNCTION record_change(
    a alarms, change text, actor_id bigint, actor text, channel text, note text DEFAULT NULL,
    rings boolean DEFAULT true
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE line bigint;
BEGIN
    INSERT INTO timeline (alarm_id, change, actor_id, actor, channel, note, alarm)
    VALUES (a.id, change, actor_id, actor, channel, note, alarm_object(a))
    RETURNING id INTO line;
    IF change IN ('raised', 'priority') THEN
        INSERT INTO outbox (timeline_id, alarm_id, channel) VALUES (line, a.id, 'station');
    END IF;
    IF rings THEN
        NOTIFY anxin_alarm;
    END IF;
END $$;

-- As before. A repeat hard on the heels of another does not ring: commits that ring wait for each
-- other, everywhere in the database, and whoever listens looks once a second anyway.
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
    storms boolean;
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
            -- After a clock was set back, the last time lies ahead: that is no storm.
            storms := clock_timestamp() - a.last_at BETWEEN interval '0' AND interval '50 milliseconds'
                      AND a.condition = 'present';
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
        PERFORM record_change(a, change, NULL, actor_, 'rule', NULL,
                              change <> 'repeated' OR NOT storms);
        RETURN change;
    END LOOP;
END $$;

-- Whether a run has ended, however; one that has not, and whose worker is no more, is taken over.
ALTER TABLE self_tests ADD COLUMN finished_at timestamptz;
UPDATE self_tests SET finished_at = started_at;
CREATE INDEX self_tests_running ON self_tests (place_id) WHERE finished_at IS NULL;
COMMENT ON COLUMN self_tests.finished_at IS
    'NULL while it runs; its worker holds the advisory lock (4155033, this id) while it lives.';
