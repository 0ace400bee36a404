-- name: list
SELECT id::text, made_at, file, bytes, rows, tables, encrypted, version, verified_at FROM backups
ORDER BY made_at DESC, id DESC LIMIT %(limit)s

-- name: note
INSERT INTO backups (made_at, file, bytes, rows, tables, encrypted, version, verified_at)
VALUES (%(made_at)s, %(file)s, %(bytes)s, %(rows)s, %(tables)s, %(encrypted)s, %(version)s,
        %(verified_at)s)
