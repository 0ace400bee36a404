-- name: add
INSERT INTO imports (id, kind, name, place_id, created_by, expires_at, columns, counts, master_id,
                     content)
VALUES (%(id)s, %(kind)s, %(name)s, %(place_id)s, %(created_by)s, %(expires_at)s, %(columns)s,
        %(counts)s, %(master_id)s, %(content)s)

-- name: list
SELECT id, kind, name, place_id::text, created_at, expires_at, columns, counts, done, applied_at
FROM imports WHERE expires_at > now() ORDER BY created_at DESC, id LIMIT %(limit)s

-- name: get
SELECT id, kind, name, place_id::text, created_at, expires_at, columns, counts, done, applied_at
FROM imports WHERE id = %(id)s AND expires_at > now()

-- name: content
SELECT kind, place_id, master_id, content, applied_at, counts FROM imports
WHERE id = %(id)s AND expires_at > now()

-- name: keep
UPDATE imports SET counts = %(counts)s, master_id = %(master_id)s, content = %(content)s, done = 0
WHERE id = %(id)s AND applied_at IS NULL

-- name: drop
DELETE FROM imports WHERE id = %(id)s

-- name: advance
UPDATE imports SET done = %(done)s WHERE id = %(id)s AND applied_at IS NULL

-- name: applied
UPDATE imports SET applied_at = now(), master_id = NULL, content = NULL, done = %(done)s
WHERE id = %(id)s AND applied_at IS NULL

-- name: one_at_a_time
-- Two lists that name the same people are taken over one after the other.
SELECT pg_try_advisory_xact_lock(4155051) AS mine

-- name: places
SELECT id, parent_id, kind, name, path FROM places
WHERE name = ANY(%(names)s::text[]) OR id = %(default)s::bigint

-- name: people
SELECT r.id, r.name, r.sex, r.born, r.place_id, r.care_level, r.fall_risk, r.wander_risk, r.note,
       i.id_card_index AS card, i.phone_index AS phone,
       ARRAY(SELECT l.phone_index FROM relatives l
             WHERE l.resident_id = r.id AND l.phone_index IS NOT NULL) AS contacts
FROM residents r JOIN places p ON p.id = r.place_id
LEFT JOIN identities i ON i.resident_id = r.id
WHERE starts_with(p.path, %(path)s::text)
  AND (r.id = ANY(%(ids)s::bigint[]) OR r.name = ANY(%(names)s::text[])
       OR r.id IN (SELECT c.resident_id FROM identities c
                   WHERE c.id_card_index = ANY(%(cards)s::bytea[])))

-- name: devices
SELECT v.key, v.id, v.kind, v.name, v.place_id, s.resident_id, v.revoked_at IS NOT NULL AS revoked
FROM devices v
LEFT JOIN places dp ON dp.id = v.place_id
LEFT JOIN assignments s ON s.device_key = v.key AND s.during @> now()
LEFT JOIN residents r ON r.id = s.resident_id
LEFT JOIN places rp ON rp.id = r.place_id
WHERE v.id = ANY(%(ids)s::text[])
  AND (%(path)s::text = '/' OR starts_with(dp.path, %(path)s::text)
       OR starts_with(rp.path, %(path)s::text))

-- name: add_beds
INSERT INTO places (parent_id, kind, name)
SELECT parent_id, 'bed', name FROM unnest(%(parents)s::bigint[], %(names)s::text[]) AS b (parent_id, name)
RETURNING id, parent_id, name

-- name: add_people
INSERT INTO residents (name, sex, born, place_id, care_level, fall_risk, wander_risk, note)
SELECT name, coalesce(sex, 'unknown'), born, place_id, care_level, coalesce(fall_risk, false),
       coalesce(wander_risk, false), coalesce(note, '')
FROM unnest(%(name)s::text[], %(sex)s::text[], %(born)s::date[], %(place_id)s::bigint[],
            %(care_level)s::smallint[], %(fall_risk)s::boolean[], %(wander_risk)s::boolean[],
            %(note)s::text[]) WITH ORDINALITY
     AS n (name, sex, born, place_id, care_level, fall_risk, wander_risk, note, at)
ORDER BY at
RETURNING id, name, place_id

-- name: change_people
-- What a row does not say stays as it is.
UPDATE residents r SET
    name = coalesce(n.name, r.name), sex = coalesce(n.sex, r.sex), born = coalesce(n.born, r.born),
    place_id = coalesce(n.place_id, r.place_id), care_level = coalesce(n.care_level, r.care_level),
    fall_risk = coalesce(n.fall_risk, r.fall_risk),
    wander_risk = coalesce(n.wander_risk, r.wander_risk), note = coalesce(n.note, r.note)
FROM unnest(%(id)s::bigint[], %(name)s::text[], %(sex)s::text[], %(born)s::date[],
            %(place_id)s::bigint[], %(care_level)s::smallint[], %(fall_risk)s::boolean[],
            %(wander_risk)s::boolean[], %(note)s::text[])
     AS n (id, name, sex, born, place_id, care_level, fall_risk, wander_risk, note)
WHERE r.id = n.id

-- name: keys
SELECT resident_id, id, master_id, wrapped FROM person_keys WHERE resident_id = ANY(%(ids)s::bigint[])

-- name: add_keys
INSERT INTO person_keys (resident_id, id, master_id, index_id, wrapped)
SELECT k.resident_id, k.id, %(master_id)s, %(index_id)s, k.wrapped
FROM unnest(%(residents)s::bigint[], %(ids)s::uuid[], %(wrapped)s::bytea[]) AS k (resident_id, id, wrapped)

-- name: set_identities
INSERT INTO identities AS i (resident_id, id_card, id_card_index, phone, phone_index)
SELECT * FROM unnest(%(residents)s::bigint[], %(id_card)s::bytea[], %(id_card_index)s::bytea[],
                     %(phone)s::bytea[], %(phone_index)s::bytea[])
ON CONFLICT (resident_id) DO UPDATE SET
    id_card = coalesce(excluded.id_card, i.id_card),
    id_card_index = coalesce(excluded.id_card_index, i.id_card_index),
    phone = coalesce(excluded.phone, i.phone),
    phone_index = coalesce(excluded.phone_index, i.phone_index),
    changed_at = now()

-- name: add_relatives
INSERT INTO relatives (id, resident_id, relation, guardian, name, phone, phone_index)
SELECT id, resident_id, relation, false, name, phone, phone_index
FROM unnest(%(ids)s::uuid[], %(residents)s::bigint[], %(relation)s::text[], %(name)s::bytea[],
            %(phone)s::bytea[], %(phone_index)s::bytea[])
     AS n (id, resident_id, relation, name, phone, phone_index)

-- name: add_devices
-- An id that is taken by what the caller may not see is left out, and told by what comes back.
INSERT INTO devices (id, kind, name, place_id, salt, secret_hash)
SELECT id, kind, coalesce(name, ''), place_id, salt, secret_hash
FROM unnest(%(id)s::text[], %(kind)s::text[], %(name)s::text[], %(place_id)s::bigint[],
            %(salt)s::bytea[], %(secret_hash)s::bytea[])
     AS n (id, kind, name, place_id, salt, secret_hash)
ON CONFLICT (id) DO NOTHING
RETURNING key, id

-- name: change_devices
UPDATE devices v SET kind = coalesce(n.kind, v.kind), name = coalesce(n.name, v.name),
    place_id = coalesce(n.place_id, v.place_id)
FROM unnest(%(key)s::integer[], %(kind)s::text[], %(name)s::text[], %(place_id)s::bigint[])
     AS n (key, kind, name, place_id)
WHERE v.key = n.key

-- name: end_assignments
UPDATE assignments SET during = tstzrange(lower(during), now())
WHERE device_key = ANY(%(keys)s::integer[]) AND during @> now() AND lower(during) < now()

-- name: add_assignments
INSERT INTO assignments (device_key, resident_id, during)
SELECT key, resident_id, tstzrange(now(), NULL)
FROM unnest(%(keys)s::integer[], %(residents)s::bigint[]) AS n (key, resident_id)
