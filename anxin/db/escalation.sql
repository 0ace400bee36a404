-- name: clock
SELECT clock_timestamp() AS now

-- name: due
SELECT e.alarm_id, e.round, e.priority AS ladder_priority, e.began_at, e.next_step, e.due_at,
       e.lease_until, a.priority, a.snoozed_until, a.resident_id, p.path, f.id AS fault_place,
       EXISTS (SELECT 1 FROM places h
               WHERE h.id = ANY(string_to_array(trim(BOTH '/' FROM p.path), '/')::bigint[])
                 AND h.kind = 'home') AS at_home,
       coalesce(a.detail ->> 'reason' = 'nobody_reachable', false) AS tells_of_this
FROM escalations e
JOIN alarms a ON a.id = e.alarm_id
LEFT JOIN residents r ON r.id = a.resident_id
LEFT JOIN devices v ON v.key = a.device_key
LEFT JOIN places p ON p.id = coalesce(r.place_id, a.place_id, v.place_id)
LEFT JOIN LATERAL (
    SELECT q.id FROM places q
    WHERE q.id = ANY(string_to_array(trim(BOTH '/' FROM p.path), '/')::bigint[])
      AND q.kind NOT IN ('room', 'bed')
    ORDER BY length(q.path) DESC LIMIT 1) AS f ON true
WHERE e.due_at <= %(now)s::timestamptz OR e.lease_until <= %(now)s::timestamptz
-- Every alarm is told of once before any is told of again.
ORDER BY a.priority DESC, e.round > 1, coalesce(e.due_at, e.lease_until) LIMIT %(limit)s

-- name: next_due
SELECT extract(epoch FROM least(
    (SELECT min(due_at) FROM escalations WHERE due_at > clock_timestamp()),
    (SELECT min(lease_until) FROM escalations WHERE lease_until > clock_timestamp())
) - clock_timestamp())::float8 AS seconds

-- name: carry_out
SELECT escalate(%(plans)s::jsonb) AS done

-- name: rescue
SELECT rescue_alarms() AS rescued

-- name: raise_unreachable
SELECT raise_alarm(t.subject, NULL, t.id, NULL, 'device_fault', 'technical', 3::smallint,
                   clock_timestamp(), false, 1, '{"reason": "nobody_reachable"}', 'watchdog')
FROM unnest(%(places)s::bigint[], %(subjects)s::text[]) AS t (id, subject)
WHERE NOT EXISTS (
    SELECT 1 FROM alarms a
    WHERE a.subject = t.subject AND a.kind = 'device_fault' AND a.handling <> 'closed'
      AND a.condition = 'present')

-- name: recover_reachable
SELECT recover_alarm(subject, 'device_fault', 'watchdog')
FROM unnest(%(subjects)s::text[]) AS t (subject)

-- name: overdue
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - due_at)), 0)::float8 AS seconds
FROM escalations WHERE due_at < clock_timestamp()
