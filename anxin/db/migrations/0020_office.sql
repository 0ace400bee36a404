-- The back office: lists of people and devices taken in as files, templates of limits, and which
-- backups there are. `docs/office.md` tells it in words.

INSERT INTO role_rights (role, right_) VALUES
    ('admin', 'imports.write'), ('supervisor', 'imports.write')
ON CONFLICT DO NOTHING;

-- A file that was looked through and waits to be taken over, or was. Nobody but who sent it sees it.
CREATE TABLE imports (
    id          uuid PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('residents', 'devices')),
    name        text NOT NULL,
    place_id    bigint REFERENCES places ON DELETE CASCADE,
    created_by  bigint NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    columns     jsonb NOT NULL DEFAULT '[]',
    counts      jsonb NOT NULL DEFAULT '{}',
    done        integer NOT NULL DEFAULT 0,
    master_id   text,
    content     bytea,
    applied_at  timestamptz,
    CHECK ((master_id IS NULL) = (content IS NULL)),
    CHECK (applied_at IS NULL OR content IS NULL)
);
CREATE INDEX imports_owner ON imports (created_by, created_at);
CREATE INDEX imports_age ON imports (expires_at);
COMMENT ON COLUMN imports.place_id IS 'Where a row goes that names no place.';
COMMENT ON COLUMN imports.content IS
    'The rows and what was found about each, sealed by a master key; gone once they are taken over.';
COMMENT ON COLUMN imports.done IS 'How many rows are written, while it is being taken over.';

-- Limits by a name, to be set for many residents at once. Those of a place hold for what is below it.
CREATE TABLE limit_templates (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    place_id    bigint REFERENCES places ON DELETE CASCADE,
    name        text NOT NULL CHECK (name <> ''),
    limits      jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (place_id, name)
);
COMMENT ON COLUMN limit_templates.place_id IS 'NULL: everywhere.';

-- What `anxin backup` leaves behind: that a backup was made, and read again to the last byte.
CREATE TABLE backups (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    made_at     timestamptz NOT NULL,
    file        text NOT NULL,
    bytes       bigint NOT NULL,
    rows        bigint NOT NULL,
    tables      integer NOT NULL,
    encrypted   boolean NOT NULL,
    version     text NOT NULL,
    verified_at timestamptz NOT NULL
);
COMMENT ON COLUMN backups.verified_at IS 'When every byte of it was read again and found whole.';

DO $$
DECLARE name_ text;
BEGIN
    FOREACH name_ IN ARRAY ARRAY['imports', 'limit_templates', 'backups'] LOOP
        EXECUTE format('ALTER TABLE %I OWNER TO anxin_owner', name_);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name_);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name_);
    END LOOP;
END $$;

GRANT SELECT, INSERT, DELETE, UPDATE (columns, counts, done, master_id, content, applied_at)
    ON imports TO anxin_api;
CREATE POLICY api_all ON imports FOR ALL TO anxin_api USING (
    created_by = (SELECT acting_user()) AND (SELECT acting_may('imports.write')));
GRANT SELECT (id, expires_at), DELETE ON imports TO anxin_worker;
CREATE POLICY anxin_worker_select ON imports FOR SELECT TO anxin_worker USING (true);
CREATE POLICY anxin_worker_delete ON imports FOR DELETE TO anxin_worker USING (true);

GRANT SELECT, INSERT (place_id, name, limits), UPDATE (name, limits), DELETE
    ON limit_templates TO anxin_api;
CREATE POLICY api_select ON limit_templates FOR SELECT TO anxin_api USING (
    (SELECT acting_may('limits.write'))
    AND (place_id IS NULL OR place_is_along(place_id, (SELECT acting_path()))));
CREATE POLICY api_insert ON limit_templates FOR INSERT TO anxin_api WITH CHECK (
    (SELECT acting_may('limits.write')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_update ON limit_templates FOR UPDATE TO anxin_api USING (
    (SELECT acting_may('limits.write')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE POLICY api_delete ON limit_templates FOR DELETE TO anxin_api USING (
    (SELECT acting_may('limits.write')) AND place_is_under(place_id, (SELECT acting_path())));
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON limit_templates
    FOR EACH ROW EXECUTE FUNCTION audit_change('limit_template', 'id');

GRANT SELECT ON backups TO anxin_api;
CREATE POLICY api_select ON backups FOR SELECT TO anxin_api USING (
    (SELECT acting_may('administer')));
-- Who makes a backup sees everything and acts as the owner.
CREATE POLICY owner_all ON backups FOR ALL TO anxin_owner USING (true);
