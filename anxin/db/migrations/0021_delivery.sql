-- When hundreds of alarms are open at once, a tick of the delivery worker reads what is new and what
-- is next, and not everything that was ever told.

-- Whose turn it is stands in the row itself. Every alarm is told of once before any is told of again.
ALTER TABLE deliveries
    ADD COLUMN urgent   boolean NOT NULL DEFAULT true,
    ADD COLUMN priority smallint NOT NULL DEFAULT 3;
COMMENT ON COLUMN deliveries.urgent IS 'Of an alarm of high priority, an emergency or a matter of safety.';
UPDATE deliveries d SET urgent = a.priority = 3 OR a.class IN ('emergency', 'safety'),
                        priority = a.priority
FROM alarms a WHERE a.id = d.alarm_id AND d.state = 'pending';
CREATE INDEX deliveries_turn ON deliveries (urgent, (round > 1), priority DESC, due_at, id)
    WHERE state = 'pending' AND channel <> 'station';
CREATE INDEX deliveries_screens ON deliveries (due_at) WHERE state = 'pending' AND channel = 'station';
CREATE INDEX deliveries_claimed ON deliveries (claimed_by)
    WHERE state = 'pending' AND claimed_by IS NOT NULL;
DROP INDEX deliveries_due;

-- Alarms of which a screen, or somebody who takes them, has said something since the deliveries were
-- last looked at. Each comes with the transaction that says it, so that none is overlooked.
CREATE TABLE receipt_news (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm_id    bigint NOT NULL
);
INSERT INTO receipt_news (alarm_id) SELECT id FROM alarms WHERE handling <> 'closed';

CREATE FUNCTION begin_delivery() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    SELECT a.priority = 3 OR a.class IN ('emergency', 'safety'), a.priority
    INTO NEW.urgent, NEW.priority FROM alarms a WHERE a.id = NEW.alarm_id;
    NEW.urgent := coalesce(NEW.urgent, true);
    NEW.priority := coalesce(NEW.priority, 3);
    RETURN NEW;
END $$;
CREATE TRIGGER begin_delivery BEFORE INSERT ON deliveries
    FOR EACH ROW EXECUTE FUNCTION begin_delivery();

GRANT CREATE ON SCHEMA public TO anxin_gate;

-- A notice may be written after its receipt, and neither transaction may know of the other: both tell.
CREATE FUNCTION tell_of_receipts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO receipt_news (alarm_id) SELECT DISTINCT alarm_id FROM fresh;
    RETURN NULL;
END $$;
CREATE TRIGGER tell_of_receipts AFTER INSERT ON receipts
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION tell_of_receipts();
CREATE FUNCTION tell_of_screens() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO receipt_news (alarm_id)
    SELECT DISTINCT alarm_id FROM fresh WHERE channel = 'station' AND alarm_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER tell_of_screens AFTER INSERT ON deliveries
    REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION tell_of_screens();

CREATE FUNCTION keep_deliveries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.handling IN ('acknowledged', 'on_site') THEN
        INSERT INTO receipt_news (alarm_id) VALUES (NEW.id);
    END IF;
    IF NEW.priority <> OLD.priority THEN
        UPDATE deliveries SET
            urgent = NEW.priority = 3 OR NEW.class IN ('emergency', 'safety'),
            priority = NEW.priority
        WHERE alarm_id = NEW.id AND state = 'pending';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_deliveries AFTER UPDATE ON alarms FOR EACH ROW
    WHEN (OLD.handling IS DISTINCT FROM NEW.handling
          OR OLD.priority IS DISTINCT FROM NEW.priority
          OR OLD.owner_id IS DISTINCT FROM NEW.owner_id)
    EXECUTE FUNCTION keep_deliveries();

ALTER FUNCTION begin_delivery() OWNER TO anxin_owner;
ALTER FUNCTION tell_of_receipts() OWNER TO anxin_gate;
ALTER FUNCTION tell_of_screens() OWNER TO anxin_gate;
ALTER FUNCTION keep_deliveries() OWNER TO anxin_gate;
REVOKE ALL ON FUNCTION begin_delivery(), tell_of_receipts(), tell_of_screens(), keep_deliveries()
    FROM PUBLIC;
REVOKE CREATE ON SCHEMA public FROM anxin_gate;

ALTER TABLE receipt_news OWNER TO anxin_owner;
ALTER TABLE receipt_news ENABLE ROW LEVEL SECURITY;
ALTER TABLE receipt_news FORCE ROW LEVEL SECURITY;
GRANT INSERT ON receipt_news TO anxin_gate;
CREATE POLICY anxin_gate_insert ON receipt_news FOR INSERT TO anxin_gate WITH CHECK (true);
-- To lock what it takes away it must be allowed to change it.
GRANT SELECT, UPDATE, DELETE ON receipt_news TO anxin_worker;
CREATE POLICY anxin_worker_select ON receipt_news FOR SELECT TO anxin_worker USING (true);
CREATE POLICY anxin_worker_update ON receipt_news FOR UPDATE TO anxin_worker USING (true);
CREATE POLICY anxin_worker_delete ON receipt_news FOR DELETE TO anxin_worker USING (true);
