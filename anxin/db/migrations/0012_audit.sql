-- Who did and who was shown what. An entry is written in the transaction of what it tells of and
-- waits; the worker takes what is committed, in order, and chains it (anxin/audit.py). What is
-- chained can only be added to. The heads are sealed with a key that the database does not have.

CREATE TABLE audit_waiting (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    user_id     bigint,
    role        text,
    path        text,
    action      text NOT NULL,
    object      text NOT NULL,
    object_id   text,
    residents   bigint[] NOT NULL DEFAULT '{}',
    fields      text[] NOT NULL DEFAULT '{}',
    status      smallint,
    channel     text,
    address     text
);
COMMENT ON TABLE audit_waiting IS 'Written, and not chained yet: a second long, while a worker runs.';

-- No foreign keys: what happened stays as it was told, whoever is gone.
CREATE TABLE audit (
    place       bigint PRIMARY KEY,
    id          bigint NOT NULL UNIQUE,
    at          timestamptz NOT NULL,
    user_id     bigint,
    role        text,
    path        text,
    action      text NOT NULL,
    object      text NOT NULL,
    object_id   text,
    residents   bigint[] NOT NULL,
    fields      text[] NOT NULL,
    status      smallint,
    channel     text,
    address     text,
    hash        bytea NOT NULL CHECK (octet_length(hash) = 32),
    seal        bytea CHECK (octet_length(seal) = 64)
);
COMMENT ON COLUMN audit.path IS 'Place of who did it, as places.path; NULL: a family, or nobody known.';
COMMENT ON COLUMN audit.residents IS 'Whom it is about, or who was shown.';
COMMENT ON COLUMN audit.fields IS 'Names of what was changed; never the values.';
COMMENT ON COLUMN audit.status IS 'Answer of HTTP to a request; NULL for a change of the data itself.';
COMMENT ON COLUMN audit.seal IS 'Ed25519 of the head, in the last row of those chained together.';
CREATE INDEX audit_time ON audit (at);
CREATE INDEX audit_user ON audit (user_id, id);
CREATE INDEX audit_residents ON audit USING gin (residents);

-- What was old enough went; each line says up to where, so that the rest can still be verified.
CREATE TABLE audit_checkpoints (
    place       bigint PRIMARY KEY,
    hash        bytea NOT NULL,
    until       timestamptz NOT NULL,
    seal        bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);

CREATE VIEW audit_log WITH (security_invoker = true) AS
SELECT id, at, user_id, role, path, action, object, object_id, residents, fields, status, channel,
       address, place
FROM audit
UNION ALL
SELECT id, at, user_id, role, path, action, object, object_id, residents, fields, status, channel,
       address, NULL
FROM audit_waiting;

-- Nobody changes what is written; only the two functions below take rows away. An owner can remove
-- this fence, and `anxin audit verify` then finds what was done behind it.
CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'anxin_gate' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'The audit is only ever added to.' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER refuses BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_refuses();
CREATE TRIGGER refuses_all BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses();
CREATE TRIGGER refuses BEFORE UPDATE OR DELETE ON audit_waiting
    FOR EACH ROW EXECUTE FUNCTION audit_refuses();
CREATE TRIGGER refuses_all BEFORE TRUNCATE ON audit_waiting
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses();
CREATE TRIGGER refuses BEFORE UPDATE OR DELETE ON audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION audit_refuses();
CREATE TRIGGER refuses_all BEFORE TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses();

-- What the API saw: reads, logins, refusals. Whom an alarm is about is looked up here.
CREATE FUNCTION note_audit(entries jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO audit_waiting (user_id, role, path, action, object, object_id, residents, fields,
                               status, channel, address)
    SELECT e.user_id, e.role, e.path, e.action, e.object, e.object_id,
           CASE WHEN e.residents = '{}' AND e.object IN ('alarm', 'timeline', 'deliveries')
                     AND e.object_id ~ '^[1-9][0-9]{0,17}$'
                THEN ARRAY(SELECT a.resident_id FROM alarms a
                           WHERE a.id = e.object_id::bigint AND a.resident_id IS NOT NULL)
                ELSE e.residents END,
           e.fields, e.status, e.channel, e.address
    FROM jsonb_to_recordset(entries) AS e (
        user_id bigint, role text, path text, action text, object text, object_id text,
        residents bigint[], fields text[], status smallint, channel text, address text)
$$;

-- What a person changed, in the transaction of the change. The arguments of the trigger: the kind
-- of object, the column that names it, and 'always' where the change of a program counts too.
CREATE FUNCTION audit_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    who bigint := acting_user();
    old_ jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    new_ jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
    row_ jsonb := coalesce(new_, old_);
    changed text[] := '{}';
BEGIN
    IF who IS NULL AND TG_NARGS < 3 THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        changed := ARRAY(SELECT key FROM jsonb_each(new_) WHERE value <> old_ -> key ORDER BY key);
        IF changed = '{}' THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO audit_waiting (user_id, role, path, action, object, object_id, residents, fields,
                               channel)
    VALUES (who, coalesce(acting_role(), session_user), acting_path(),
            CASE TG_OP WHEN 'INSERT' THEN 'create' WHEN 'UPDATE' THEN 'change' ELSE 'delete' END,
            TG_ARGV[0], row_ ->> TG_ARGV[1],
            CASE WHEN TG_ARGV[0] = 'resident' THEN ARRAY[(row_ ->> 'id')::bigint]
                 WHEN row_ ->> 'resident_id' IS NOT NULL
                 THEN ARRAY[(row_ ->> 'resident_id')::bigint]
                 ELSE '{}' END,
            changed, CASE WHEN who IS NULL THEN 'database' END);
    RETURN NULL;
END $$;

-- What a person did about an alarm stands in its timeline; here it is told once more.
CREATE FUNCTION audit_act() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO audit_waiting (user_id, role, path, action, object, object_id, residents, channel)
    SELECT NEW.actor_id, u.role,
           CASE WHEN u.role = 'family' THEN NULL
                WHEN u.place_id IS NULL AND u.role = 'admin' THEN '/' ELSE p.path END,
           NEW.change, 'alarm', NEW.alarm_id::text,
           CASE WHEN NEW.alarm ->> 'resident_id' IS NOT NULL
                THEN ARRAY[(NEW.alarm ->> 'resident_id')::bigint] ELSE '{}' END,
           NEW.channel
    FROM (SELECT 1) AS once
    LEFT JOIN users u ON u.id = NEW.actor_id
    LEFT JOIN places p ON p.id = u.place_id;
    RETURN NULL;
END $$;
CREATE TRIGGER audited AFTER INSERT ON timeline
    FOR EACH ROW WHEN (NEW.actor_id IS NOT NULL) EXECUTE FUNCTION audit_act();

CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON places
    FOR EACH ROW EXECUTE FUNCTION audit_change('place', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON residents
    FOR EACH ROW EXECUTE FUNCTION audit_change('resident', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION audit_change('user', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON family_links
    FOR EACH ROW EXECUTE FUNCTION audit_change('family', 'user_id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON devices
    FOR EACH ROW EXECUTE FUNCTION audit_change('device', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON assignments
    FOR EACH ROW EXECUTE FUNCTION audit_change('assignment', 'device_key');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON commands
    FOR EACH ROW EXECUTE FUNCTION audit_change('command', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON shifts
    FOR EACH ROW EXECUTE FUNCTION audit_change('shift', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON ladders
    FOR EACH ROW EXECUTE FUNCTION audit_change('ladder', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON contacts
    FOR EACH ROW EXECUTE FUNCTION audit_change('contact', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON identities
    FOR EACH ROW EXECUTE FUNCTION audit_change('identity', 'resident_id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON relatives
    FOR EACH ROW EXECUTE FUNCTION audit_change('relative', 'id');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON consents
    FOR EACH ROW EXECUTE FUNCTION audit_change('consent', 'id');
-- That somebody was erased, and what a role may do: however it came about.
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON erasures
    FOR EACH ROW EXECUTE FUNCTION audit_change('erasure', 'id', 'always');
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON role_rights
    FOR EACH ROW EXECUTE FUNCTION audit_change('right', 'right_', 'always');

-- Moves what waits into the chain, as one; what is moved is what was written, not what is given.
CREATE FUNCTION chain_audit(ids bigint[], places bigint[], hashes bytea[], seal_ bytea)
RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE moved bigint;
BEGIN
    WITH given AS (
        SELECT * FROM unnest(ids, places, hashes) AS g (id, place, hash)
    ), taken AS (
        DELETE FROM audit_waiting w USING given g WHERE w.id = g.id
        RETURNING w.*, g.place, g.hash
    )
    INSERT INTO audit (place, id, at, user_id, role, path, action, object, object_id, residents,
                       fields, status, channel, address, hash, seal)
    SELECT place, id, at, user_id, role, path, action, object, object_id, residents, fields, status,
           channel, address, hash, CASE WHEN place = places[cardinality(places)] THEN seal_ END
    FROM taken;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> cardinality(ids) THEN
        RAISE EXCEPTION 'Entries that waited are gone.';
    END IF;
END $$;

-- Removes what is older than the law and the operator ask for, up to a head, and says so.
CREATE FUNCTION forget_audit(place_ bigint, until_ timestamptz, seal_ bytea) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE removed bigint;
BEGIN
    IF until_ > now() - interval '180 days'
       OR EXISTS (SELECT 1 FROM audit WHERE place <= place_ AND at > until_) THEN
        RAISE EXCEPTION 'Entries of the last 180 days stay.';
    END IF;
    INSERT INTO audit_checkpoints (place, hash, until, seal)
    SELECT place, hash, until_, seal_ FROM audit WHERE place = place_;
    DELETE FROM audit WHERE place <= place_;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Who looked at somebody, or changed something about them: for a family with consent and for who
-- leads the place. The name of a relative is nobody's business but its own.
CREATE FUNCTION access_to(resident_ bigint, from_ timestamptz, to_ timestamptz, before_ bigint,
                          limit_ integer)
RETURNS TABLE (id bigint, at timestamptz, name text, role text, place text, self boolean,
               action text, object text, fields text[], channel text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.id, l.at,
           CASE WHEN l.role IS DISTINCT FROM 'family' OR l.user_id = (SELECT acting_user())
                THEN u.username END,
           l.role, p.name, coalesce(l.user_id = (SELECT acting_user()), false),
           l.action, l.object, l.fields, l.channel
    FROM audit_log l
    LEFT JOIN users u ON u.id = l.user_id
    LEFT JOIN places p ON p.id = u.place_id
    WHERE l.residents @> ARRAY[resident_]
      AND l.at >= from_ AND l.at < to_
      AND (before_ IS NULL OR l.id < before_)
      AND coalesce(l.status, 200) IN (200, 201, 204, 409)
      AND (SELECT acting_may('access.read'))
      AND (resident_ = ANY ((SELECT acting_residents('status'))::bigint[])
           OR EXISTS (SELECT 1 FROM residents r JOIN places home ON home.id = r.place_id
                      WHERE r.id = resident_ AND starts_with(home.path, (SELECT acting_path()))))
    ORDER BY l.id DESC LIMIT limit_
$$;

INSERT INTO role_rights (role, right_) VALUES
    ('admin', 'audit.read'),
    ('admin', 'access.read'), ('supervisor', 'access.read'), ('family', 'access.read');

-- Whose all this is, and who may what.
GRANT CREATE ON SCHEMA public TO anxin_gate;
ALTER TABLE audit_waiting OWNER TO anxin_owner;
ALTER TABLE audit OWNER TO anxin_owner;
ALTER TABLE audit_checkpoints OWNER TO anxin_owner;
ALTER VIEW audit_log OWNER TO anxin_owner;
ALTER FUNCTION audit_refuses() OWNER TO anxin_owner;
ALTER FUNCTION note_audit(jsonb) OWNER TO anxin_gate;
ALTER FUNCTION audit_change() OWNER TO anxin_gate;
ALTER FUNCTION audit_act() OWNER TO anxin_gate;
ALTER FUNCTION chain_audit(bigint[], bigint[], bytea[], bytea) OWNER TO anxin_gate;
ALTER FUNCTION forget_audit(bigint, timestamptz, bytea) OWNER TO anxin_gate;
ALTER FUNCTION access_to(bigint, timestamptz, timestamptz, bigint, integer) OWNER TO anxin_gate;

REVOKE CREATE ON SCHEMA public FROM anxin_gate;

REVOKE ALL ON FUNCTION
    audit_refuses(), note_audit(jsonb), audit_change(), audit_act(),
    chain_audit(bigint[], bigint[], bytea[], bytea), forget_audit(bigint, timestamptz, bytea),
    access_to(bigint, timestamptz, timestamptz, bigint, integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION note_audit(jsonb) TO anxin_door;
GRANT EXECUTE ON FUNCTION access_to(bigint, timestamptz, timestamptz, bigint, integer) TO anxin_api;
GRANT EXECUTE ON FUNCTION
    chain_audit(bigint[], bigint[], bytea[], bytea), forget_audit(bigint, timestamptz, bytea)
TO anxin_worker;

GRANT SELECT, INSERT, DELETE ON audit_waiting, audit TO anxin_gate;
GRANT SELECT, INSERT ON audit_checkpoints TO anxin_gate;
GRANT SELECT ON audit_log TO anxin_gate;
GRANT SELECT ON audit, audit_waiting, audit_log TO anxin_api;
GRANT SELECT ON audit, audit_waiting, audit_checkpoints TO anxin_worker;

ALTER TABLE audit_waiting ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_waiting FORCE ROW LEVEL SECURITY;
ALTER TABLE audit ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_checkpoints FORCE ROW LEVEL SECURITY;

CREATE POLICY gate ON audit_waiting TO anxin_gate USING (true) WITH CHECK (true);
CREATE POLICY gate ON audit TO anxin_gate USING (true) WITH CHECK (true);
CREATE POLICY gate ON audit_checkpoints TO anxin_gate USING (true) WITH CHECK (true);
CREATE POLICY worker ON audit_waiting FOR SELECT TO anxin_worker USING (true);
CREATE POLICY worker ON audit FOR SELECT TO anxin_worker USING (true);
CREATE POLICY worker ON audit_checkpoints FOR SELECT TO anxin_worker USING (true);
-- Who administers everything reads everything; who administers a place, what its people did.
CREATE POLICY administrators ON audit FOR SELECT TO anxin_api
    USING ((SELECT acting_may('audit.read'))
           AND starts_with(coalesce(path, '/'), (SELECT acting_path())));
CREATE POLICY administrators ON audit_waiting FOR SELECT TO anxin_api
    USING ((SELECT acting_may('audit.read'))
           AND starts_with(coalesce(path, '/'), (SELECT acting_path())));
