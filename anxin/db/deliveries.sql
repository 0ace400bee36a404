-- name: hold
-- Held for as long as the connection lives: by this others know that a claim is not abandoned.
SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND classid = 4155023
               AND objid = %(worker)s::integer::oid AND pid = pg_backend_pid())
       OR pg_try_advisory_lock(4155023, %(worker)s::integer) AS held

-- name: show
-- A screen reads the stream by itself: a notice to it has gone out as soon as it is due.
UPDATE deliveries SET
    state = 'sent', attempts = attempts + 1, sent_at = clock_timestamp(), claimed_by = NULL,
    deadline_at = clock_timestamp() + %(receipt_seconds)s * interval '1 second'
WHERE id IN (
    SELECT id FROM deliveries
    WHERE state = 'pending' AND channel = 'station' AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED)

-- name: claim
-- What is due, urgent or calm, and what a worker that is no more had claimed. A claim itself
-- runs out too: a worker that stands still does not keep a notice. What can wait does so in the
-- quiet hours of a relative; by then somebody may have taken the alarm. What is urgent never does.
WITH living AS MATERIALIZED (
    SELECT l.objid::bigint AS worker FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 4155023 AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
), due AS (
    SELECT d.id FROM deliveries d
    WHERE d.state = 'pending' AND d.channel <> 'station' AND d.urgent = %(urgent)s::boolean
      AND d.due_at <= clock_timestamp() AND NOT d.id = ANY(%(busy)s::bigint[])
      AND (%(urgent)s::boolean OR NOT is_quiet(coalesce(
          (SELECT c.user_id FROM contacts c WHERE c.id = d.contact_id), d.user_id),
          %(local)s::time))
    -- As the index deliveries_turn has them.
    ORDER BY d.round > 1, d.priority DESC, d.due_at, d.id
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), left_behind AS (
    SELECT d.id FROM deliveries d
    WHERE d.state = 'pending' AND d.channel <> 'station' AND d.urgent = %(urgent)s::boolean
      AND d.claimed_by IS NOT NULL AND d.claimed_by NOT IN (SELECT worker FROM living)
      AND NOT d.id = ANY(%(busy)s::bigint[])
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), next AS (
    SELECT id FROM left_behind UNION SELECT id FROM due LIMIT %(limit)s
), claimed AS (
    UPDATE deliveries d SET
        claimed_by = %(worker)s::integer,
        attempts = d.attempts + 1,
        contact_id = coalesce(d.contact_id, (
            SELECT c.id FROM contacts c
            WHERE c.user_id = d.user_id AND c.channel = d.channel AND c.enabled
            ORDER BY c.id LIMIT 1)),
        due_at = clock_timestamp() + %(claim_seconds)s * interval '1 second',
        deadline_at = coalesce(
            d.deadline_at, clock_timestamp() + %(receipt_seconds)s * interval '1 second')
    FROM next WHERE d.id = next.id
    RETURNING d.*
)
SELECT d.id, d.key, d.alarm_id, d.channel, d.contact_id, d.attempts, d.created_at,
       a.kind, CASE WHEN a.kind = 'device_fault' THEN a.detail ->> 'reason' END AS reason,
       a.priority, a.raised_at,
       d.urgent,
       r.name, coalesce(here.places, '{}') AS places,
       c.address, c.secret,
       c.id IS NOT NULL AND c.enabled AND u.disabled_at IS NULL AS usable
FROM claimed d
JOIN alarms a ON a.id = d.alarm_id
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN devices v ON v.key = a.device_key
LEFT JOIN places p ON p.id = coalesce(r.place_id, a.place_id, v.place_id)
LEFT JOIN contacts c ON c.id = d.contact_id
LEFT JOIN users u ON u.id = coalesce(c.user_id, d.user_id)
LEFT JOIN LATERAL (
    -- From the nearest facility or home down to the bed; without either the place alone.
    SELECT array_agg(q.name ORDER BY length(q.path)) AS places
    FROM (SELECT q.*, max(length(q.path)) FILTER (WHERE q.kind IN ('facility', 'home')) OVER () AS top
          FROM places q
          WHERE q.id = ANY(string_to_array(trim(BOTH '/' FROM p.path), '/')::bigint[])) AS q
    WHERE length(q.path) >= coalesce(q.top, length(p.path))
) AS here ON true
ORDER BY d.round > 1, d.priority DESC, d.id

-- name: unwanted
-- What can wait, and is for a relative who wants to hear of what is urgent only.
UPDATE deliveries d SET state = 'cancelled', deadline_at = NULL, claimed_by = NULL,
                        error = 'This person wants urgent notices only.'
FROM quiet_hours q, users u
WHERE d.state = 'pending' AND NOT d.urgent
  AND q.only_urgent AND u.id = q.user_id AND u.role = 'family'
  AND q.user_id = coalesce(
      (SELECT c.user_id FROM contacts c WHERE c.id = d.contact_id), d.user_id)

-- name: still_due
-- Asked just before a message leaves: somebody may have taken the alarm since the claim.
UPDATE deliveries d SET
    state = CASE WHEN a.handling = 'open' AND NOT coalesce(a.snoozed_until > now(), false)
                 THEN 'pending' ELSE 'cancelled' END,
    due_at = clock_timestamp() + %(claim_seconds)s * interval '1 second'
FROM alarms a
WHERE d.id = ANY(%(ids)s::bigint[]) AND a.id = d.alarm_id
  AND d.state = 'pending' AND d.claimed_by = %(worker)s::integer
RETURNING d.id, d.state

-- name: sent
UPDATE deliveries d SET
    state = CASE WHEN d.state = 'pending' THEN 'sent' ELSE d.state END,
    sent_at = %(now)s::timestamptz,
    provider_id = %(provider_id)s::text,
    error = NULL,
    claimed_by = NULL,
    deadline_at = CASE WHEN %(tells)s::boolean
                       THEN %(now)s::timestamptz + %(receipt_seconds)s * interval '1 second' END
WHERE d.id = ANY(%(ids)s::bigint[]) AND d.sent_at IS NULL

-- name: failed
-- A refusal for good lets the next way be due at once; a passing one leaves it its deadline.
UPDATE deliveries d SET
    state = CASE WHEN %(permanent)s::boolean AND d.state = 'pending' THEN 'failed' ELSE d.state END,
    error = %(error)s::text,
    claimed_by = NULL,
    due_at = clock_timestamp() + %(rest_seconds)s * interval '1 second',
    deadline_at = CASE WHEN %(permanent)s::boolean THEN clock_timestamp() ELSE d.deadline_at END
WHERE d.id = ANY(%(ids)s::bigint[]) AND d.sent_at IS NULL

-- name: put_off
UPDATE deliveries d SET
    claimed_by = NULL, attempts = d.attempts - 1, deadline_at = NULL,
    due_at = clock_timestamp() + %(rest_seconds)s * interval '1 second'
WHERE d.id = ANY(%(ids)s::bigint[]) AND d.state = 'pending'

-- name: messages_in_a_minute
-- Deliveries that went out in one message share their moment.
SELECT count(DISTINCT sent_at)::integer AS messages FROM deliveries
WHERE contact_id = %(contact_id)s AND sent_at > now() - interval '1 minute'

-- name: next_ways
-- Whoever gave no receipt in time, or cannot be reached by this way, is reached by the next.
WITH overdue AS MATERIALIZED (
    SELECT d.id, d.alarm_id, d.round, d.step, d.audience, d.user_id, d.contact_id, d.channel, d.state
    FROM deliveries d
    WHERE d.deadline_at <= clock_timestamp() AND d.state IN ('pending', 'sent', 'failed')
    ORDER BY d.deadline_at LIMIT 200 FOR UPDATE SKIP LOCKED
), told AS (
    UPDATE deliveries d SET
        deadline_at = NULL,
        error = CASE WHEN o.state = 'sent' THEN 'No receipt in time.' ELSE d.error END
    FROM overdue o WHERE d.id = o.id
), following AS (
    SELECT DISTINCT ON (o.alarm_id, o.round, c.id)
           o.alarm_id, o.round, o.step, o.audience, o.user_id, c.id AS contact_id, c.channel
    FROM overdue o
    JOIN alarms a ON a.id = o.alarm_id AND a.handling = 'open'
                 AND NOT coalesce(a.snoozed_until > now(), false)
    LEFT JOIN contacts was ON was.id = o.contact_id
    CROSS JOIN LATERAL (
        SELECT c.id, c.channel FROM contacts c
        WHERE c.enabled AND c.channel <> 'station'
          AND (c.user_id = coalesce(o.user_id, was.user_id)
               OR c.place_id = was.place_id AND c.office = was.office)
          AND NOT EXISTS (SELECT 1 FROM deliveries x
                          WHERE x.alarm_id = o.alarm_id AND x.round = o.round
                            AND x.contact_id = c.id)
        ORDER BY c.failing_since IS NOT NULL, c.id LIMIT 1
    ) AS c
    ORDER BY o.alarm_id, o.round, c.id, o.step
)
INSERT INTO deliveries
    (key, alarm_id, round, step, audience, user_id, contact_id, channel, due_at)
SELECT concat_ws(':', alarm_id, round, step, audience, 'c' || contact_id, channel),
       alarm_id, round, step, audience, user_id, contact_id, channel, clock_timestamp()
FROM following
ON CONFLICT (key) DO NOTHING

-- name: bridge
-- The receipts of the stream are those of the station's deliveries: of the person's own screens, or
-- of any of staff where the delivery names nobody. Who takes the alarm has had every notice of it.
-- Only of alarms with news: the rest has been carried over.
WITH news AS MATERIALIZED (
    DELETE FROM receipt_news WHERE id IN (
        SELECT id FROM receipt_news ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED)
    RETURNING alarm_id
), seen AS MATERIALIZED (
    SELECT d.id, d.state, d.channel, r.displayed_at, r.received_at,
           a.owner_id IS NOT NULL AND a.owner_id = d.user_id
               AND a.handling IN ('acknowledged', 'on_site') AS taken
    FROM (SELECT DISTINCT alarm_id FROM news) AS n
    JOIN alarms a ON a.id = n.alarm_id
    JOIN deliveries d ON d.alarm_id = a.id
    CROSS JOIN LATERAL (
        SELECT min(r.at) FILTER (WHERE r.kind = 'displayed') AS displayed_at,
               min(r.at) FILTER (WHERE r.kind = 'received') AS received_at
        FROM receipts r JOIN users u ON u.id = r.user_id
        WHERE d.channel = 'station' AND r.alarm_id = d.alarm_id
          AND (r.user_id = d.user_id OR d.user_id IS NULL AND u.role <> 'family')
    ) AS r
    WHERE a.handling <> 'closed' AND d.state IN ('sent', 'delivered', 'displayed')
      AND (d.channel = 'station' OR a.owner_id = d.user_id)
)
UPDATE deliveries d SET
    state = CASE WHEN s.taken THEN 'acknowledged'
                 WHEN s.channel = 'station' AND s.displayed_at IS NOT NULL THEN 'displayed'
                 ELSE 'delivered' END,
    displayed_at = CASE WHEN s.channel = 'station' THEN coalesce(d.displayed_at, s.displayed_at)
                        ELSE d.displayed_at END,
    delivered_at = CASE WHEN s.channel = 'station'
                        THEN coalesce(d.delivered_at, s.received_at, s.displayed_at)
                        ELSE d.delivered_at END,
    deadline_at = CASE WHEN s.taken OR s.displayed_at IS NOT NULL THEN NULL ELSE d.deadline_at END
FROM seen s
WHERE d.id = s.id
  AND (s.taken
       OR s.channel = 'station' AND (s.displayed_at IS NOT NULL AND s.state <> 'displayed'
                                     OR s.received_at IS NOT NULL AND s.state = 'sent'))

-- name: reported
-- What a provider reports of a message: it arrived, or it never will.
UPDATE deliveries d SET
    state = CASE WHEN NOT s.arrived AND d.state = 'sent' THEN 'failed'
                 WHEN s.arrived AND d.state IN ('pending', 'sent') THEN 'delivered'
                 ELSE d.state END,
    delivered_at = CASE WHEN s.arrived THEN coalesce(d.delivered_at, now()) ELSE d.delivered_at END,
    deadline_at = CASE WHEN s.arrived THEN NULL ELSE now() END,
    error = CASE WHEN s.arrived THEN NULL ELSE 'The provider could not deliver it.' END
FROM unnest(%(provider_ids)s::text[], %(arrived)s::boolean[]) AS s (provider_id, arrived)
WHERE d.channel = %(channel)s AND d.provider_id = s.provider_id
  AND d.state IN ('pending', 'sent', 'delivered')

-- name: of_alarm
SELECT d.id::text, d.round, d.step, d.audience, d.user_id::text, u.username,
       d.contact_id::text, d.channel, d.state, d.due_at, d.attempts, d.created_at,
       d.sent_at, d.delivered_at, d.displayed_at, d.error
FROM deliveries d LEFT JOIN users u ON u.id = d.user_id
WHERE d.alarm_id = %(id)s AND d.id > %(after)s
ORDER BY d.id LIMIT %(limit)s
