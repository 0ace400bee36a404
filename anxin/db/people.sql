-- name: key
SELECT k.id, k.master_id, k.wrapped FROM person_keys k
JOIN residents r ON r.id = k.resident_id JOIN places p ON p.id = r.place_id
WHERE k.resident_id = %(id)s AND starts_with(p.path, %(path)s::text)

-- name: add_key
-- Of two at the same moment one is first; the other takes its key.
INSERT INTO person_keys (resident_id, id, master_id, index_id, wrapped)
VALUES (%(id)s, %(key_id)s, %(master_id)s, %(index_id)s, %(wrapped)s)
ON CONFLICT (resident_id) DO NOTHING

-- name: identity
SELECT i.id_card, i.phone FROM identities i
JOIN residents r ON r.id = i.resident_id JOIN places p ON p.id = r.place_id
WHERE i.resident_id = %(id)s AND starts_with(p.path, %(path)s::text)

-- name: set_identity
INSERT INTO identities (resident_id, id_card, id_card_index, phone, phone_index)
VALUES (%(id)s, %(id_card)s, %(id_card_index)s, %(phone)s, %(phone_index)s)
ON CONFLICT (resident_id) DO UPDATE SET
    id_card = CASE WHEN 'id_card' = ANY(%(given)s::text[])
                   THEN excluded.id_card ELSE identities.id_card END,
    id_card_index = CASE WHEN 'id_card' = ANY(%(given)s::text[])
                         THEN excluded.id_card_index ELSE identities.id_card_index END,
    phone = CASE WHEN 'phone' = ANY(%(given)s::text[])
                 THEN excluded.phone ELSE identities.phone END,
    phone_index = CASE WHEN 'phone' = ANY(%(given)s::text[])
                       THEN excluded.phone_index ELSE identities.phone_index END,
    changed_at = now()

-- name: relatives
SELECT l.id, l.relation, l.guardian, l.name, l.phone, l.created_at FROM relatives l
JOIN residents r ON r.id = l.resident_id JOIN places p ON p.id = r.place_id
WHERE l.resident_id = %(id)s AND starts_with(p.path, %(path)s::text)
ORDER BY l.created_at, l.id

-- name: add_relative
INSERT INTO relatives (id, resident_id, relation, guardian, name, phone, phone_index)
VALUES (%(relative_id)s, %(id)s, %(relation)s, %(guardian)s, %(name)s, %(phone)s, %(phone_index)s)
RETURNING created_at

-- name: remove_relative
DELETE FROM relatives WHERE id = %(relative_id)s AND resident_id = %(id)s

-- name: find
-- By the blind index: an equal value, without opening any.
SELECT r.id::text, r.name, CASE WHEN found.guardian IS NULL THEN 'resident' ELSE 'relative' END AS whose
FROM (
    SELECT resident_id, NULL::boolean AS guardian FROM identities
    WHERE id_card_index = ANY(%(id_cards)s::bytea[]) OR phone_index = ANY(%(phones)s::bytea[])
    UNION
    SELECT resident_id, bool_or(guardian) FROM relatives
    WHERE phone_index = ANY(%(relative_phones)s::bytea[]) GROUP BY resident_id
) AS found
JOIN residents r ON r.id = found.resident_id JOIN places p ON p.id = r.place_id
WHERE starts_with(p.path, %(path)s::text)
ORDER BY r.id, whose LIMIT %(limit)s

-- name: uses
SELECT master_id, index_id, count(*)::integer AS people FROM person_keys GROUP BY 1, 2 ORDER BY 1, 2

-- name: stale
SELECT resident_id FROM person_keys
WHERE (master_id <> %(master_id)s OR index_id <> %(index_id)s) AND resident_id > %(after)s
ORDER BY resident_id LIMIT %(limit)s

-- name: hold_key
SELECT resident_id, id, master_id, index_id, wrapped FROM person_keys
WHERE resident_id = %(id)s FOR UPDATE

-- name: sealed
SELECT 'identities' AS table_, 'id_card' AS column_, resident_id::text AS row_, id_card AS sealed
FROM identities WHERE resident_id = %(id)s AND id_card IS NOT NULL
UNION ALL
SELECT 'identities', 'phone', resident_id::text, phone
FROM identities WHERE resident_id = %(id)s AND phone IS NOT NULL
UNION ALL
SELECT 'relatives', 'phone', id::text, phone
FROM relatives WHERE resident_id = %(id)s AND phone IS NOT NULL

-- name: index_identities_id_card
UPDATE identities SET id_card_index = %(index)s WHERE resident_id = %(row)s::bigint

-- name: index_identities_phone
UPDATE identities SET phone_index = %(index)s WHERE resident_id = %(row)s::bigint

-- name: index_relatives_phone
UPDATE relatives SET phone_index = %(index)s WHERE id = %(row)s::uuid

-- name: rewrap
UPDATE person_keys SET master_id = %(master_id)s, index_id = %(index_id)s, wrapped = %(wrapped)s,
    rewrapped_at = now()
WHERE resident_id = %(id)s
