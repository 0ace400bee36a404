-- name: exists
SELECT 1 FROM pg_roles WHERE rolname = %s

-- name: belongs
SELECT 1 FROM pg_auth_members
WHERE roleid = %s::text::regrole AND member = %s::text::regrole

-- name: reach
-- What who is connected could be, beside itself.
SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication,
       ARRAY(SELECT o.rolname::text FROM pg_roles o
             WHERE o.rolname <> session_user AND pg_has_role(session_user, o.oid, 'MEMBER')
             ORDER BY 1)
FROM pg_roles WHERE rolname = session_user
