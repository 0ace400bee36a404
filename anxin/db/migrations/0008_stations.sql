-- Which screens keep watch, and the proof that an alarm's way to them works.

ALTER TABLE stations ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
ALTER TABLE stations ADD COLUMN visible_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE stations ADD COLUMN on_duty_at timestamptz;
COMMENT ON COLUMN stations.visible_at IS 'When the page was last known to be on the screen.';
COMMENT ON COLUMN stations.on_duty_at IS 'When the station was last known to be on duty.';
CREATE INDEX stations_place ON stations (place_id);

-- A station that cannot call anybody is passed over once, and again at the earliest after a while.
ALTER TABLE escalations ADD COLUMN hurried_at timestamptz;
COMMENT ON COLUMN escalations.hurried_at IS 'When the next step came early, for the station was deaf.';

-- The self-test's own device raises an alarm that tells nobody. Only this mark, which no device can
-- send, makes it so; and only where the worker runs self-tests.
CREATE FUNCTION mark_self_test() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM devices d JOIN self_tests t ON d.id = 'anxin-selftest-' || t.place_id
        WHERE d.key = NEW.device_key AND t.started_at > now() - interval '1 hour'
    ) THEN
        NEW.detail := NEW.detail || '{"selftest": true}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER mark_self_test BEFORE INSERT ON alarms FOR EACH ROW
    WHEN (NEW.kind = 'sos' AND NEW.resident_id IS NULL) EXECUTE FUNCTION mark_self_test();

-- Who may see what has changed: open streams look again at once.
CREATE FUNCTION access_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY anxin_access;
    RETURN NULL;
END $$;
CREATE TRIGGER access_changed AFTER UPDATE OR DELETE ON sessions
    FOR EACH ROW EXECUTE FUNCTION access_changed();
CREATE TRIGGER access_changed AFTER UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION access_changed();
CREATE TRIGGER access_changed AFTER INSERT OR UPDATE OR DELETE ON family_links
    FOR EACH ROW EXECUTE FUNCTION access_changed();
