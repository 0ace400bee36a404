-- Sessions that say where they are used, end when they are not, and know when a password was shown.

-- `expires_at` is when a session ends if nobody uses it any more; it moves on with use, up to
-- `ends_at`. A session without `idle` ends at a fixed time.
ALTER TABLE sessions
    ADD COLUMN id           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN idle         interval,
    ADD COLUMN ends_at      timestamptz,
    ADD COLUMN used_at      timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN confirmed_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN address      text NOT NULL DEFAULT '',
    ADD COLUMN device       text NOT NULL DEFAULT '',
    ADD CHECK ((idle IS NULL) = (ends_at IS NULL));
COMMENT ON COLUMN sessions.confirmed_at IS 'When the password was last shown.';
COMMENT ON COLUMN sessions.device IS 'In words, from what the browser says of itself.';

GRANT UPDATE (expires_at, used_at, confirmed_at) ON sessions TO anxin_door;
CREATE POLICY anxin_door_update ON sessions FOR UPDATE TO anxin_door USING (true);
GRANT SELECT (id, used_at, address, device) ON sessions TO anxin_api;
