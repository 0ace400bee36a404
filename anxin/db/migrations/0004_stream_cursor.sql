-- Places in the stream come from a sequence: a place is never given twice, even when the newest
-- lines of the timeline are removed together with their alarm.

CREATE SEQUENCE stream_cursor;
SELECT setval('stream_cursor', max(cursor)) FROM timeline HAVING max(cursor) IS NOT NULL;

-- Gives committed changes their place in the stream and returns the last place given. Called as a
-- statement of its own, so the lock is held by the server only and no stopped client can keep it.
-- A change that commits late gets a later place: no cursor ever passes it by. The lock is taken
-- even when nothing waits: what is returned must not count places whose giver has not committed.
CREATE OR REPLACE FUNCTION advance_stream() RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(4155021);
    WITH waiting AS MATERIALIZED (
        SELECT id, nextval('stream_cursor') AS place
        FROM (SELECT id FROM timeline WHERE cursor IS NULL ORDER BY id) AS in_order
    )
    UPDATE timeline t SET cursor = w.place FROM waiting w WHERE t.id = w.id;
    RETURN (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM stream_cursor);
END $$;
