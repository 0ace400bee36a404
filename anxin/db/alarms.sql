-- name: list
-- By number from the end, a look at the place of each, until the page is full. CASE and not coalesce,
-- of which the planner does not know that it gives nothing away, and would then search all places.
SELECT a.id, alarm_object(a) AS alarm
FROM alarms a
WHERE (SELECT (starts_with(coalesce(p.path, '/'), %(path)s::text)
               OR a.resident_id = ANY(%(residents)s::bigint[]))
              AND (%(place_id)s::bigint IS NULL
                   OR starts_with(p.path, (SELECT path FROM places WHERE id = %(place_id)s::bigint)))
       FROM (VALUES (true)) AS one
       LEFT JOIN residents r ON r.id = a.resident_id
       LEFT JOIN devices v ON v.key = a.device_key
       LEFT JOIN places p ON p.id = CASE WHEN r.place_id IS NOT NULL THEN r.place_id
                                      WHEN a.place_id IS NOT NULL THEN a.place_id
                                      ELSE v.place_id END)
  AND (%(handling)s::text[] IS NULL OR a.handling = ANY(%(handling)s::text[]))
  AND (%(priority)s::smallint[] IS NULL OR a.priority = ANY(%(priority)s::smallint[]))
  AND (%(kind)s::text[] IS NULL OR a.kind = ANY(%(kind)s::text[]))
  AND (%(resident_id)s::bigint IS NULL OR a.resident_id = %(resident_id)s::bigint)
  AND (%(before)s::bigint IS NULL OR a.id < %(before)s::bigint)
ORDER BY a.id DESC LIMIT %(limit)s

-- name: get
SELECT a.id, alarm_object(a) AS alarm
FROM alarms a
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN devices v ON v.key = a.device_key
LEFT JOIN places p ON p.id = CASE WHEN r.place_id IS NOT NULL THEN r.place_id
                                  WHEN a.place_id IS NOT NULL THEN a.place_id
                                  ELSE v.place_id END
WHERE a.id = %(id)s
  AND (starts_with(coalesce(p.path, '/'), %(path)s::text)
       OR a.resident_id = ANY(%(residents)s::bigint[]))

-- name: change
-- The guard is the WHERE: of two people who act at once one changes the row, the other sees none.
UPDATE alarms SET
    handling = coalesce(%(target)s::text, handling),
    owner_id = CASE WHEN %(target)s::text IS NULL THEN owner_id
                    WHEN handling = 'open' THEN %(user_id)s::bigint
                    ELSE coalesce(owner_id, %(user_id)s::bigint) END,
    outcome = %(outcome)s::text,
    closed_at = CASE WHEN %(target)s::text = 'closed' THEN clock_timestamp() ELSE closed_at END,
    snoozed_until = coalesce(%(until)s::timestamptz, snoozed_until)
WHERE id = %(id)s AND handling = ANY(%(sources)s::text[])

-- name: record
SELECT record_change(a, %(change)s, %(user_id)s, %(username)s, %(channel)s, %(note)s),
       alarm_object(a) AS alarm
FROM alarms a WHERE a.id = %(id)s

-- name: lock
SELECT 1 FROM alarms WHERE id = %(id)s FOR UPDATE

-- name: timeline
SELECT t.id::text, t.at, t.change, t.actor, t.channel, t.note, t.cursor,
       t.alarm ->> 'handling' AS handling, t.alarm ->> 'priority' AS priority,
       t.alarm ->> 'condition' AS condition
FROM timeline t WHERE t.alarm_id = %(id)s AND t.id > %(after)s
ORDER BY t.id LIMIT %(limit)s

-- name: advance
SELECT advance_stream() AS cursor

-- name: oldest
SELECT min(cursor) AS cursor FROM timeline

-- name: stream
SELECT t.cursor, t.change, t.at, t.alarm, a.resident_id, coalesce(p.path, '/') AS path
FROM timeline t
JOIN alarms a ON a.id = t.alarm_id
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN devices v ON v.key = a.device_key
LEFT JOIN places p ON p.id = coalesce(r.place_id, a.place_id, v.place_id)
WHERE t.cursor > %(after)s AND t.cursor <= %(upto)s
  AND (starts_with(coalesce(p.path, '/'), %(path)s::text)
       OR a.resident_id = ANY(%(residents)s::bigint[]))
ORDER BY t.cursor LIMIT %(limit)s

-- name: open
SELECT priority, count(*) AS alarms FROM alarms WHERE handling <> 'closed' GROUP BY priority

-- name: receive
-- Receipts of many viewers in one statement; those for alarms that a viewer may not see vanish.
WITH said AS (
    SELECT * FROM unnest(%(kinds)s::text[], %(cursors)s::bigint[], %(alarms)s::bigint[],
                         %(users)s::bigint[], %(paths)s::text[])
        AS s (kind, cursor, alarm_id, user_id, path)
), seen AS (
    SELECT DISTINCT a.id AS alarm_id, s.user_id, s.kind, s.cursor
    FROM said s
    LEFT JOIN timeline t ON s.kind = 'received' AND t.cursor = s.cursor
    JOIN alarms a ON a.id = coalesce(t.alarm_id, s.alarm_id)
    LEFT JOIN residents r ON r.id = a.resident_id
    LEFT JOIN devices v ON v.key = a.device_key
    LEFT JOIN places p ON p.id = coalesce(r.place_id, a.place_id, v.place_id)
    WHERE starts_with(coalesce(p.path, '/'), s.path)
       OR EXISTS (SELECT 1 FROM family_links f
                  WHERE s.path IS NULL AND f.user_id = s.user_id
                    AND f.resident_id = a.resident_id
                    AND 'alarms' = ANY(scopes_in_force(f.scopes, f.ends)))
), displayed AS (
    UPDATE outbox o SET displayed_at = now()
    FROM seen WHERE seen.kind = 'displayed' AND o.alarm_id = seen.alarm_id
      AND o.channel = 'station' AND o.displayed_at IS NULL
)
INSERT INTO receipts (alarm_id, user_id, kind, cursor)
SELECT alarm_id, user_id, kind, cursor FROM seen
WHERE EXISTS (SELECT 1 FROM users u WHERE u.id = seen.user_id)
ON CONFLICT DO NOTHING
