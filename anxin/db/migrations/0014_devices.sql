-- How a device comes in: enrolled with a code, let in by a secret that can be renewed without a gap
-- or by a certificate, heard through a gateway; and from where it was last connected.

ALTER TABLE devices
    ADD COLUMN old_salt bytea,
    ADD COLUMN old_secret_hash bytea,
    ADD COLUMN old_until timestamptz,
    ADD COLUMN certificates_from timestamptz;
COMMENT ON COLUMN devices.old_until IS 'So long the secret before the present one opens too.';
COMMENT ON COLUMN devices.certificates_from IS
    'Certificates issued before do not open: when the device was last revoked.';
CREATE INDEX devices_gateway ON devices (gateway_key) WHERE gateway_key IS NOT NULL;

-- Whoever changes a secret never reads one: what was before is kept, or not, by the table itself.
CREATE FUNCTION keep_old_secret() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL THEN
        NEW.certificates_from := now();
        NEW.old_until := NULL;
    ELSIF NEW.secret_hash <> OLD.secret_hash AND NEW.old_until > now()
          AND (OLD.old_until IS NULL OR OLD.old_until <= now()) THEN
        -- Renewed again before the new one was used, the one that is in use goes on instead.
        NEW.old_salt := OLD.salt;
        NEW.old_secret_hash := OLD.secret_hash;
    END IF;
    IF NEW.old_until IS NULL OR NEW.old_until <= now() THEN
        NEW.old_salt := NULL;
        NEW.old_secret_hash := NULL;
        NEW.old_until := NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_old_secret BEFORE UPDATE ON devices
    FOR EACH ROW EXECUTE FUNCTION keep_old_secret();

CREATE OR REPLACE VIEW device_cards WITH (security_invoker = true) AS
SELECT d.key, d.id, d.kind, d.salt, d.secret_hash, d.revoked_at IS NOT NULL AS revoked,
       r.id AS resident_id,
       coalesce(r.place_id, d.place_id) AS place_id,
       coalesce(r.fall_risk, false) AS fall_risk,
       coalesce(r.wander_risk, false) AS wander_risk,
       coalesce(r.spo2_scale, 1) AS spo2_scale,
       coalesce(r.limits, '{}') AS limits,
       l.metrics, l.absent_since, l.present_since, l.active_at,
       d.old_salt, d.old_secret_hash, d.old_until, d.certificates_from
FROM devices d
LEFT JOIN assignments a ON a.device_key = d.key AND a.during @> now()
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN latest l ON l.device_key = d.key;

GRANT SELECT (old_until), UPDATE (old_until) ON devices TO anxin_api;
-- The first use of a new secret ends the old one.
GRANT UPDATE (old_until) ON devices TO anxin_ingest;
CREATE POLICY anxin_ingest_update ON devices FOR UPDATE TO anxin_ingest USING (true);

ALTER TABLE device_states
    ADD COLUMN connected_at timestamptz,
    ADD COLUMN network text,
    ADD COLUMN tls text,
    ADD COLUMN certificate_until timestamptz;
COMMENT ON COLUMN device_states.network IS
    'From where it was last connected: loopback, private, public or other; never the address.';
COMMENT ON COLUMN device_states.tls IS 'Version of TLS of that connection; empty: none.';

-- A code lets one device in, once, within a day. It carries 55 random bits and is kept as a hash:
-- who reads the hash has a day to find it, and can then do what it was made for, once.
CREATE TABLE enrolments (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code_hash   bytea NOT NULL UNIQUE CHECK (octet_length(code_hash) = 32),
    kind        text NOT NULL,
    name        text NOT NULL DEFAULT '',
    place_id    bigint REFERENCES places ON DELETE CASCADE,
    resident_id bigint REFERENCES residents ON DELETE CASCADE,
    gateway_key integer REFERENCES devices ON DELETE CASCADE,
    device_id   text CHECK (device_id ~ '^[A-Za-z0-9_-]{1,64}$'),
    created_by  bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    withdrawn_at timestamptz,
    used_at     timestamptz
);
CREATE INDEX enrolments_place ON enrolments (place_id, id);
COMMENT ON COLUMN enrolments.device_id IS 'What the device will be called; empty until it is used, if it may choose.';

-- Uses a code up: makes the device, with whom it was meant for. Returns its id, '' when that id is
-- taken, NULL when the code is none: unknown, used, withdrawn, too old, or of somebody who has left.
CREATE FUNCTION redeem_enrolment(code_hash_ bytea, device_id_ text, fallback_id text, salt_ bytea,
                                 secret_hash_ bytea)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    e enrolments;
    key_ integer;
BEGIN
    SELECT n.* INTO e FROM enrolments n JOIN users u ON u.id = n.created_by
    WHERE n.code_hash = code_hash_ AND n.used_at IS NULL AND n.withdrawn_at IS NULL
      AND n.expires_at > now() AND u.disabled_at IS NULL
    FOR UPDATE OF n;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    e.device_id := coalesce(e.device_id, device_id_, e.kind || '-' || fallback_id);
    INSERT INTO devices (id, kind, name, place_id, salt, secret_hash, gateway_key)
    VALUES (e.device_id, e.kind, e.name, e.place_id, salt_, secret_hash_, e.gateway_key)
    ON CONFLICT (id) DO NOTHING RETURNING key INTO key_;
    IF key_ IS NULL THEN
        RETURN '';
    END IF;
    IF e.resident_id IS NOT NULL THEN
        INSERT INTO assignments (device_key, resident_id, during)
        VALUES (key_, e.resident_id, tstzrange(now(), NULL));
    END IF;
    UPDATE enrolments SET used_at = now(), device_id = e.device_id WHERE id = e.id;
    RETURN e.device_id;
END $$;

GRANT CREATE ON SCHEMA public TO anxin_gate;
ALTER TABLE enrolments OWNER TO anxin_owner;
ALTER TABLE enrolments ENABLE ROW LEVEL SECURITY;
ALTER TABLE enrolments FORCE ROW LEVEL SECURITY;
ALTER FUNCTION keep_old_secret() OWNER TO anxin_owner;
ALTER FUNCTION redeem_enrolment(bytea, text, text, bytea, bytea) OWNER TO anxin_gate;
REVOKE CREATE ON SCHEMA public FROM anxin_gate;
REVOKE ALL ON FUNCTION keep_old_secret(), redeem_enrolment(bytea, text, text, bytea, bytea)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION redeem_enrolment(bytea, text, text, bytea, bytea) TO anxin_door;

GRANT SELECT, UPDATE (used_at, device_id) ON enrolments TO anxin_gate;
CREATE POLICY gate ON enrolments TO anxin_gate USING (true) WITH CHECK (true);
GRANT INSERT (id, kind, name, place_id, salt, secret_hash, gateway_key) ON devices TO anxin_gate;
CREATE POLICY anxin_gate_insert ON devices FOR INSERT TO anxin_gate WITH CHECK (true);
GRANT INSERT (device_key, resident_id, during) ON assignments TO anxin_gate;
CREATE POLICY anxin_gate_insert ON assignments FOR INSERT TO anxin_gate WITH CHECK (true);

-- Codes are made and seen by who may enrol a device there; the code itself by nobody.
GRANT SELECT (id, kind, name, place_id, resident_id, gateway_key, device_id, created_by, created_at,
              expires_at, withdrawn_at, used_at),
      INSERT (code_hash, kind, name, place_id, resident_id, gateway_key, device_id, created_by,
              expires_at),
      UPDATE (withdrawn_at)
    ON enrolments TO anxin_api;
CREATE POLICY api_select ON enrolments FOR SELECT TO anxin_api USING (
    (SELECT acting_may('devices.read'))
    AND ((SELECT acting_path()) = '/'
         OR EXISTS (SELECT FROM places p
                    WHERE p.id = place_id AND starts_with(p.path, (SELECT acting_path())))));
CREATE POLICY api_insert ON enrolments FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('devices.write')) AND created_by = (SELECT acting_user())
    AND ((SELECT acting_path()) = '/'
         OR EXISTS (SELECT FROM places p
                    WHERE p.id = place_id AND starts_with(p.path, (SELECT acting_path()))))
    AND (resident_id IS NULL OR EXISTS (SELECT FROM residents r WHERE r.id = resident_id))
    AND (gateway_key IS NULL OR sees_device(gateway_key)));
CREATE POLICY api_update ON enrolments FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('devices.write'))
    AND ((SELECT acting_path()) = '/'
         OR EXISTS (SELECT FROM places p
                    WHERE p.id = place_id AND starts_with(p.path, (SELECT acting_path())))));

-- A device that let itself in has no session: the use of its code is told by the database.
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON enrolments
    FOR EACH ROW EXECUTE FUNCTION audit_change('enrolment', 'id', 'always');
