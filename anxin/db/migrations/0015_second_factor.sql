-- Second factors, one-time passwords, and the devices that a user has logged in with.
-- `docs/accounts.md` tells it in words.

ALTER TABLE sessions
    ADD COLUMN method  text NOT NULL DEFAULT 'password'
                       CHECK (method IN ('password', 'oidc', 'wecom')),
    ADD COLUMN limited text CHECK (limited IN ('password', 'second-factor'));
COMMENT ON COLUMN sessions.method IS 'By what its user has shown at its beginning who it is.';
COMMENT ON COLUMN sessions.limited IS 'What is missing yet: the only thing that this session may do.';
COMMENT ON COLUMN sessions.confirmed_at IS 'When its user has last shown again who it is.';

-- A session takes a new token, and its tickets go with it.
ALTER TABLE tickets
    DROP CONSTRAINT tickets_session_hash_fkey,
    ADD CONSTRAINT tickets_session_hash_fkey FOREIGN KEY (session_hash) REFERENCES sessions
        ON DELETE CASCADE ON UPDATE CASCADE;

ALTER TABLE users ADD COLUMN password_expires_at timestamptz;
COMMENT ON COLUMN users.password_expires_at IS 'Until then a one-time password is good, to set another.';

CREATE TABLE second_factors (
    user_id      bigint PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    master_id    text NOT NULL,
    secret       bytea NOT NULL,
    last_step    bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz
);
COMMENT ON TABLE second_factors IS 'Secrets of time-based codes (RFC 6238), sealed with a master key.';
COMMENT ON COLUMN second_factors.last_step IS 'Time step of the last code; none is taken twice.';
COMMENT ON COLUMN second_factors.confirmed_at IS 'Before this nobody is asked for a code.';

CREATE TABLE recovery_codes (
    user_id     bigint NOT NULL REFERENCES second_factors ON DELETE CASCADE,
    code_hash   bytea NOT NULL,
    used_at     timestamptz,
    PRIMARY KEY (user_id, code_hash)
);
COMMENT ON TABLE recovery_codes IS 'Each stands once for a code of a lost telephone.';

CREATE TABLE known_devices (
    user_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    mark        bytea NOT NULL,
    used_at     timestamptz NOT NULL,
    PRIMARY KEY (user_id, mark)
);
COMMENT ON COLUMN known_devices.mark IS 'Hash of the cookie that a browser was given at its last login.';
CREATE INDEX known_devices_mark ON known_devices (mark);

-- Failures on a device that the user knows have a budget of their own: whoever guesses elsewhere uses
-- up nothing of it.
ALTER TABLE login_attempts
    ADD COLUMN id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ADD COLUMN mark bytea;
COMMENT ON TABLE login_attempts IS 'Failed logins of the last hour; more than some are refused.';
COMMENT ON COLUMN login_attempts.mark IS 'Of the known device or session that it came from.';
CREATE INDEX login_attempts_address ON login_attempts (address, at) WHERE mark IS NULL;
CREATE INDEX login_attempts_at ON login_attempts (at);

-- What a session lacks. Who has come by a provider of identities has shown there what it asks for.
CREATE FUNCTION session_lacks(user_ bigint, method_ text, needing text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN method_ <> 'password' THEN NULL
                WHEN u.password_expires_at IS NOT NULL THEN 'password'
                WHEN u.role = ANY(needing) AND NOT EXISTS (
                    SELECT FROM second_factors f
                    WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL)
                THEN 'second-factor' END
    FROM users u WHERE u.id = user_
$$;

-- Whoever is given another role or another place begins anew.
CREATE FUNCTION end_changed_sessions() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM sessions WHERE user_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER end_sessions AFTER UPDATE OF role, place_id ON users FOR EACH ROW
    WHEN (OLD.role <> NEW.role OR OLD.place_id IS DISTINCT FROM NEW.place_id)
    EXECUTE FUNCTION end_changed_sessions();

-- Whose account somebody may put in order: relatives' below the own place; an administrator any there.
CREATE FUNCTION manages_user(user_ bigint) RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    RETURN acting_may('users.write') AND EXISTS (
        SELECT FROM users u
        WHERE u.id = user_ AND (u.role = 'family' OR acting_role() = 'admin')
          AND place_is_under(u.place_id, acting_path()));
END $$;

GRANT CREATE ON SCHEMA public TO anxin_gate;
-- A session that lacks something acts on behalf of nobody.
CREATE OR REPLACE FUNCTION acting_user() RETURNS bigint LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN (SELECT u.id FROM sessions s JOIN users u ON u.id = s.user_id
            WHERE s.token_hash = decode(nullif(current_setting('anxin.session', true), ''), 'hex')
              AND s.expires_at > now() AND s.limited IS NULL AND u.disabled_at IS NULL);
END $$;
REVOKE ALL ON FUNCTION manages_user(bigint) FROM PUBLIC;
ALTER FUNCTION manages_user(bigint) OWNER TO anxin_gate;
REVOKE CREATE ON SCHEMA public FROM anxin_gate;
GRANT EXECUTE ON FUNCTION manages_user(bigint) TO anxin_api;

REVOKE ALL ON FUNCTION session_lacks(bigint, text, text[]), end_changed_sessions() FROM PUBLIC;
ALTER FUNCTION session_lacks(bigint, text, text[]) OWNER TO anxin_owner;
ALTER FUNCTION end_changed_sessions() OWNER TO anxin_owner;
GRANT EXECUTE ON FUNCTION session_lacks(bigint, text, text[]) TO anxin_door;

-- Whose all this is, and who may touch what of it.
DO $$
DECLARE
    name_ text;
    command_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY['second_factors', 'recovery_codes', 'known_devices'] LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO anxin_owner', name_);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name_);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name_);
        FOREACH command_ IN ARRAY ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'] LOOP
            EXECUTE format('GRANT %s ON %I TO anxin_door', command_, name_);
            EXECUTE format('CREATE POLICY %I ON %I FOR %s TO anxin_door %s',
                           'anxin_door_' || lower(command_), name_, command_,
                           CASE command_ WHEN 'INSERT' THEN 'WITH CHECK (true)'
                                         ELSE 'USING (true)' END);
        END LOOP;
    END LOOP;
END $$;

GRANT UPDATE (token_hash, limited) ON sessions TO anxin_door;
GRANT UPDATE (password_hash, password_expires_at) ON users TO anxin_door;
CREATE POLICY anxin_door_update ON users FOR UPDATE TO anxin_door USING (true);
GRANT UPDATE (password_expires_at) ON users TO anxin_api;

GRANT SELECT (user_id, created_at, confirmed_at), DELETE ON second_factors TO anxin_api;
CREATE POLICY api_select ON second_factors FOR SELECT TO anxin_api USING (
    user_id = (SELECT acting_user()) OR manages_user(user_id));
CREATE POLICY api_delete ON second_factors FOR DELETE TO anxin_api USING (manages_user(user_id));
