-- The risk model: what it says of each resident now and said before, what is usual for each, what
-- staff measure by hand, and which model may alarm where. `docs/risk.md` tells it in words.

INSERT INTO role_rights (role, right_) VALUES
    ('admin', 'models.write'), ('supervisor', 'models.write')
ON CONFLICT DO NOTHING;

-- One row a resident: the last judgement, renewed when it changes and every few minutes.
CREATE TABLE risk (
    resident_id   bigint PRIMARY KEY REFERENCES residents ON DELETE CASCADE,
    at            timestamptz NOT NULL,
    data_at       timestamptz,
    score         smallint NOT NULL CHECK (score BETWEEN 0 AND 20),
    possible_max  smallint NOT NULL CHECK (possible_max BETWEEN score AND 20),
    complete      boolean NOT NULL,
    band          text NOT NULL CHECK (band IN ('low', 'low-medium', 'medium', 'high')),
    deterioration real,
    novelty       real,
    priority      smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 3),
    model         text NOT NULL,
    explanation   jsonb NOT NULL
) WITH (fillfactor = 60);
COMMENT ON COLUMN risk.data_at IS 'Time of the newest value that it was judged by.';
COMMENT ON COLUMN risk.score IS 'Points that are certain; it is NEWS2 only where complete.';
COMMENT ON COLUMN risk.deterioration IS 'Of the learned model, 0 to 1; NULL: not scored.';
COMMENT ON COLUMN risk.priority IS 'What the policy asks for: 0 nothing, 1 low, 2 medium, 3 high.';

-- A line when the band, the priority or the model changes, and one an hour otherwise.
CREATE TABLE risk_history (
    resident_id   bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    at            timestamptz NOT NULL,
    score         smallint NOT NULL,
    possible_max  smallint NOT NULL,
    complete      boolean NOT NULL,
    band          text NOT NULL,
    deterioration real,
    novelty       real,
    priority      smallint NOT NULL,
    model         text NOT NULL,
    PRIMARY KEY (resident_id, at)
);
CREATE INDEX risk_history_age ON risk_history USING brin (at);

-- What is usual for somebody, as the worker goes on with it after a restart.
CREATE TABLE baselines (
    resident_id   bigint PRIMARY KEY REFERENCES residents ON DELETE CASCADE,
    at            timestamptz NOT NULL,
    layout        text NOT NULL CHECK (layout <> ''),
    state         bytea NOT NULL,
    usual         jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 80);
COMMENT ON COLUMN baselines.layout IS 'How the state is written; another layout begins anew.';
COMMENT ON COLUMN baselines.usual IS
    'For people: {"hr": {"low": 58, "middle": 66, "high": 75}, ...} at this time of day.';

-- What staff see and measure by hand. A line stays as it was written; a new one may correct it.
CREATE TABLE observations (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    resident_id   bigint NOT NULL REFERENCES residents ON DELETE CASCADE,
    at            timestamptz NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT now(),
    by_id         bigint REFERENCES users ON DELETE SET NULL,
    corrects      bigint UNIQUE,
    consciousness text CHECK (consciousness IN ('A', 'C', 'V', 'P', 'U')),
    oxygen        boolean,
    hr            real,
    rr            real,
    spo2          real,
    temp          real,
    sbp           real,
    dbp           real,
    withdrawn     boolean NOT NULL DEFAULT false,
    UNIQUE (resident_id, id),
    FOREIGN KEY (resident_id, corrects) REFERENCES observations (resident_id, id),
    CHECK (num_nonnulls(consciousness, oxygen, hr, rr, spo2, temp, sbp, dbp) > 0
           OR withdrawn AND corrects IS NOT NULL)
);
CREATE INDEX observations_resident ON observations (resident_id, at);
CREATE INDEX observations_new ON observations (recorded_at);
COMMENT ON COLUMN observations.corrects IS 'The line that counts no more.';
COMMENT ON COLUMN observations.withdrawn IS 'Nothing is in its place: it was somebody else.';

CREATE FUNCTION observation_stays() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    -- Who wrote it stays, unless that account goes.
    IF to_jsonb(NEW) - 'by_id' <> to_jsonb(OLD) - 'by_id' OR NEW.by_id IS NOT NULL THEN
        RAISE EXCEPTION 'An observation stays as it was written: correct it by a new one.'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER observation_stays BEFORE UPDATE ON observations
    FOR EACH ROW EXECUTE FUNCTION observation_stays();

-- Which model may alarm where: the nearest place on the way up decides, then what stands for all.
CREATE TABLE model_modes (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model         text NOT NULL CHECK (model IN ('news2', 'deterioration', 'novelty', 'rhythm')),
    place_id      bigint REFERENCES places ON DELETE CASCADE,
    mode          text NOT NULL CHECK (mode IN ('shadow', 'alarming', 'off')),
    since         timestamptz NOT NULL DEFAULT now(),
    why           text NOT NULL,
    by_id         bigint REFERENCES users ON DELETE SET NULL,
    UNIQUE NULLS NOT DISTINCT (model, place_id)
);
COMMENT ON COLUMN model_modes.place_id IS 'NULL: everywhere.';
COMMENT ON COLUMN model_modes.by_id IS 'NULL: the platform itself.';

-- A learned layer begins in the shadow: scored and recorded, not alarmed.
INSERT INTO model_modes (model, mode, why) VALUES
    ('news2', 'alarming', 'default'), ('deterioration', 'shadow', 'default'),
    ('novelty', 'shadow', 'default'), ('rhythm', 'shadow', 'default');

-- How each model does, as the worker sees it.
CREATE TABLE model_states (
    model         text PRIMARY KEY,
    version       text NOT NULL,
    at            timestamptz NOT NULL,
    fault         text,
    state         jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON COLUMN model_states.fault IS 'Why it is not used at present, in plain words.';
COMMENT ON COLUMN model_states.state IS 'Drift, predicted rates and what the card says of it; nothing of a resident.';

-- What people found out about alarms of the model: the labels it is judged by.
CREATE VIEW risk_feedback AS
SELECT a.id AS alarm_id, a.resident_id, a.kind, a.priority, a.raised_at, a.closed_at, a.outcome,
       a.detail ->> 'model' AS model
FROM alarms a
WHERE a.kind IN ('early_warning', 'risk_rising', 'unusual') AND a.handling = 'closed'
  AND a.outcome IN ('real', 'false') AND NOT a.detail @> '{"selftest": true}';
CREATE INDEX alarms_of_models ON alarms (kind, raised_at)
    WHERE kind IN ('early_warning', 'risk_rising', 'unusual');

-- Whose all this is, and who may what.
DO $$
DECLARE
    name_ text;
    one record;
    command_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY['risk', 'risk_history', 'baselines', 'observations', 'model_modes',
                                 'model_states'] LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO anxin_owner', name_);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name_);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name_);
    END LOOP;
    FOR one IN
        SELECT split_part(use_, ':', 1) AS table_, split_part(use_, ':', 2) AS uses
        FROM regexp_split_to_table('risk:SIU risk_history:SID baselines:SIU observations:S '
                                   'model_modes:SIU model_states:SIU', '\s+') AS use_
    LOOP
        FOREACH command_ IN ARRAY string_to_array(one.uses, NULL) LOOP
            command_ := CASE command_ WHEN 'S' THEN 'SELECT' WHEN 'I' THEN 'INSERT'
                                      WHEN 'U' THEN 'UPDATE' WHEN 'D' THEN 'DELETE' END;
            EXECUTE format('GRANT %s ON %I TO anxin_worker', command_, one.table_);
            EXECUTE format('CREATE POLICY %I ON %I FOR %s TO anxin_worker %s',
                           'anxin_worker_' || lower(command_), one.table_, command_,
                           CASE command_ WHEN 'INSERT' THEN 'WITH CHECK (true)' ELSE 'USING (true)' END);
        END LOOP;
    END LOOP;
END $$;
ALTER VIEW risk_feedback OWNER TO anxin_owner;
ALTER VIEW risk_feedback SET (security_invoker = true);
ALTER FUNCTION observation_stays() OWNER TO anxin_owner;
REVOKE ALL ON FUNCTION observation_stays() FROM PUBLIC;
GRANT SELECT ON risk_feedback TO anxin_worker, anxin_api;

-- Scores and what is usual are values: staff of the place, and relatives who may see values.
GRANT SELECT ON risk, risk_history TO anxin_api;
GRANT SELECT (resident_id, at, usual) ON baselines TO anxin_api;
CREATE POLICY api_select ON risk FOR SELECT TO anxin_api USING (
    (SELECT acting_may('vitals.read'))
    AND ((SELECT acting_path()) = '/' OR resident_is_under(resident_id, (SELECT acting_path()))
         OR resident_id = ANY((SELECT acting_residents('vitals'))::bigint[])));
CREATE POLICY api_select ON risk_history FOR SELECT TO anxin_api USING (
    (SELECT acting_may('vitals.read'))
    AND ((SELECT acting_path()) = '/' OR resident_is_under(resident_id, (SELECT acting_path()))
         OR resident_id = ANY((SELECT acting_residents('vitals'))::bigint[])));
CREATE POLICY api_select ON baselines FOR SELECT TO anxin_api USING (
    (SELECT acting_may('vitals.read'))
    AND ((SELECT acting_path()) = '/' OR resident_is_under(resident_id, (SELECT acting_path()))
         OR resident_id = ANY((SELECT acting_residents('vitals'))::bigint[])));

GRANT SELECT, INSERT (resident_id, at, by_id, corrects, consciousness, oxygen, hr, rr, spo2, temp,
                      sbp, dbp, withdrawn) ON observations TO anxin_api;
CREATE POLICY api_select ON observations FOR SELECT TO anxin_api USING (
    (SELECT acting_may('assess'))
    AND ((SELECT acting_path()) = '/' OR resident_is_under(resident_id, (SELECT acting_path()))));
CREATE POLICY api_insert ON observations FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('assess')) AND by_id = (SELECT acting_user())
    AND resident_is_under(resident_id, (SELECT acting_path())));

-- A mode of a place concerns who is in it or around it; one for everywhere is for who sees all.
GRANT SELECT, INSERT (model, place_id, mode, since, why, by_id), UPDATE (mode, since, why, by_id)
    ON model_modes TO anxin_api;
CREATE POLICY api_select ON model_modes FOR SELECT TO anxin_api USING (
    (SELECT acting_may('reports.read'))
    AND (place_id IS NULL OR place_is_along(place_id, (SELECT acting_path()))));
CREATE POLICY api_insert ON model_modes FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('models.write')) AND by_id = (SELECT acting_user())
    AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_update ON model_modes FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('models.write')) AND place_is_under(place_id, (SELECT acting_path())))
    WITH CHECK (by_id = (SELECT acting_user()));

GRANT SELECT ON model_states TO anxin_api;
CREATE POLICY api_select ON model_states FOR SELECT TO anxin_api USING (
    (SELECT acting_may('reports.read')));

CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON observations
    FOR EACH ROW EXECUTE FUNCTION audit_change('observation', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON model_modes
    FOR EACH ROW EXECUTE FUNCTION audit_change('model', 'model', 'always');
