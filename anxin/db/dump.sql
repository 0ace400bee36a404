-- name: patience
-- A large database takes its time. Without row security the server refuses what a policy would
-- silently leave out.
SELECT set_config('statement_timeout', '0', false),
       set_config('idle_in_transaction_session_timeout', '0', false),
       set_config('row_security', 'off', false),
       set_config('timezone', 'UTC', false),
       set_config('datestyle', 'ISO', false),
       set_config('extra_float_digits', '1', false),
       set_config('search_path', 'pg_catalog', false)

-- name: no_other_partitions
-- As long as this connection lives, the worker makes and drops no partition: it would wait for us,
-- and every writer behind it (anxin/db/upkeep.sql).
SELECT pg_advisory_lock_shared(4155024)

-- name: one_moment
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: export
SELECT pg_export_snapshot()

-- name: version
SELECT current_setting('server_version')

-- name: timescale
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')

-- name: size
SELECT pg_database_size(current_database())

-- name: migrated
SELECT to_regclass('public.schema_migrations') IS NOT NULL

-- name: schema
SELECT version FROM public.schema_migrations ORDER BY version

-- name: tables
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname

-- name: content
-- Half of a SHA-256 for each row, added up: rows may come in any order, and two that are the same
-- do not cancel each other.
SELECT count(*),
       coalesce(sum(('x' || encode(substr(sha256(convert_to(t::text, 'UTF8')), 1, 7), 'hex'))
                    ::bit(56)::bigint), 0)::text
FROM {} AS t

-- name: roles
-- Whoever owns or was granted something in this database, and what such roles belong to. The logins
-- of `anxin up` are made anew at each start.
WITH RECURSIVE named AS (
    SELECT r.oid FROM pg_roles r
    WHERE r.rolname LIKE 'anxin\_%' AND NOT r.rolcanlogin
       OR r.oid IN (SELECT d.refobjid FROM pg_shdepend d
                    WHERE d.refclassid = 'pg_authid'::regclass
                      AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION
    SELECT m.roleid FROM pg_auth_members m JOIN named ON named.oid = m.member
)
SELECT r.rolname, r.rolinherit, r.rolbypassrls,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
             WHERE m.member = r.oid ORDER BY g.rolname)
FROM pg_roles r JOIN named ON named.oid = r.oid
WHERE r.rolname !~ '^pg_' AND NOT r.rolsuper
ORDER BY r.rolname

-- name: grants
SELECT coalesce(g.rolname, ''), acl.privilege_type
FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) AS acl
LEFT JOIN pg_roles g ON g.oid = acl.grantee
WHERE d.datname = current_database() AND acl.grantee <> d.datdba
ORDER BY 1, 2

-- name: may_act_as
SELECT pg_has_role(%s, 'MEMBER')

-- name: role_names
SELECT rolname FROM pg_roles

-- name: end_sessions
DELETE FROM public.sessions
