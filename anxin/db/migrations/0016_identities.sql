-- Who somebody is at a provider of identities, and logins that have gone there and are not back yet.
-- `docs/single-sign-on.md` tells how they come about.

-- Nobody comes in by one before an administrator has linked it: nothing is kept about a stranger.
CREATE TABLE outside_identities (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id     bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    provider    text NOT NULL CHECK (provider <> ''),
    issuer      text NOT NULL CHECK (issuer <> ''),
    subject     text NOT NULL CHECK (subject <> ''),
    linked_by   bigint REFERENCES users ON DELETE SET NULL,
    linked_at   timestamptz NOT NULL DEFAULT now(),
    used_at     timestamptz,
    UNIQUE (issuer, subject)
);
CREATE INDEX outside_identities_user ON outside_identities (user_id);
COMMENT ON COLUMN outside_identities.provider IS 'Name of the setting by which it was linked.';
COMMENT ON COLUMN outside_identities.issuer IS
    'Whose subject it is; a name that is later set to another issuer lets nobody in.';

CREATE TABLE outside_logins (
    state_hash   bytea PRIMARY KEY CHECK (octet_length(state_hash) = 32),
    browser_hash bytea NOT NULL CHECK (octet_length(browser_hash) = 32),
    provider     text NOT NULL,
    nonce        text NOT NULL,
    verifier     text NOT NULL,
    next         text NOT NULL,
    session_id   bigint,
    address      text NOT NULL,
    began_at     timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX outside_logins_address ON outside_logins (address);
COMMENT ON COLUMN outside_logins.browser_hash IS 'Of a cookie: it must come back with that browser.';
COMMENT ON COLUMN outside_logins.session_id IS
    'Of the session whose user shows itself anew; empty for a first login.';

CREATE TRIGGER audited AFTER INSERT OR DELETE ON outside_identities
    FOR EACH ROW EXECUTE FUNCTION audit_change('outside_identity', 'id');

ALTER TABLE outside_identities OWNER TO anxin_owner;
ALTER TABLE outside_logins OWNER TO anxin_owner;
ALTER TABLE outside_identities ENABLE ROW LEVEL SECURITY;
ALTER TABLE outside_identities FORCE ROW LEVEL SECURITY;
ALTER TABLE outside_logins ENABLE ROW LEVEL SECURITY;
ALTER TABLE outside_logins FORCE ROW LEVEL SECURITY;

-- The door finds out whose an identity is; it links none.
GRANT SELECT, UPDATE (used_at) ON outside_identities TO anxin_door;
CREATE POLICY anxin_door_select ON outside_identities FOR SELECT TO anxin_door USING (true);
CREATE POLICY anxin_door_update ON outside_identities FOR UPDATE TO anxin_door USING (true);
GRANT SELECT, INSERT, DELETE ON outside_logins TO anxin_door;
CREATE POLICY anxin_door_select ON outside_logins FOR SELECT TO anxin_door USING (true);
CREATE POLICY anxin_door_insert ON outside_logins FOR INSERT TO anxin_door WITH CHECK (true);
CREATE POLICY anxin_door_delete ON outside_logins FOR DELETE TO anxin_door USING (true);

-- An administrator sees, links and unlinks those of the people under the own place.
GRANT SELECT, INSERT (user_id, provider, issuer, subject, linked_by), DELETE
    ON outside_identities TO anxin_api;
CREATE POLICY api_select ON outside_identities FOR SELECT TO anxin_api USING (
    (SELECT acting_may('administer')) AND manages_user(user_id));
CREATE POLICY api_insert ON outside_identities FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('administer')) AND manages_user(user_id)
    AND linked_by = (SELECT acting_user()));
CREATE POLICY api_delete ON outside_identities FOR DELETE TO anxin_api USING (
    (SELECT acting_may('administer')) AND manages_user(user_id));

