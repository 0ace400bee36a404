"""What a database holds and does not fence, read from its catalogue, so nothing is forgotten."""

from typing import Any

import psycopg

Connection = psycopg.Connection[dict[str, Any]]

SERVICES = ("anxin_gate", "anxin_api", "anxin_door", "anxin_ingest", "anxin_worker")
OWNER = "anxin_owner"
ROLES = (OWNER, *SERVICES)
COMMANDS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
PUBLIC_FACTS = {"schema_migrations", "role_rights"}
"""What every request may read, whoever asks: it tells of nobody."""

REQUEST_FUNCTIONS = {
    "acting_user", "acting_role", "acting_path", "acting_residents", "acting_may", "acting_places",
    "place_is_under", "place_is_along", "resident_is_under", "device_is_under",
    "device_stands_under", "device_serves_under", "device_is_with", "sees_resident",
    "sees_device", "sees_event", "sees_alarm", "manages_user",
    "count_series", "series_of_readings", "series_of_minutes", "series_of_hours",
    "exported_readings", "access_to", "alarm_object", "station_of", "answers_to", "nights_of",
}  # fmt: skip
"""Functions that look past the policies and that a request may call; tests try what each shows."""

OWNERS_FUNCTIONS = {"add_partition", "drop_partitions"}
"""What only an owner can do and the worker asks for; neither shows a row."""

SECRETS = {
    "users.password_hash": {"anxin_door"},
    "devices.salt": {"anxin_ingest"},
    "devices.secret_hash": {"anxin_ingest"},
    "devices.old_salt": {"anxin_ingest"},
    "devices.old_secret_hash": {"anxin_ingest"},
    "sessions.token_hash": {"anxin_door", "anxin_gate", "anxin_worker"},
    "tickets.token_hash": {"anxin_door", "anxin_worker"},
    "tickets.session_hash": {"anxin_door", "anxin_worker"},
    "contacts.secret": {"anxin_api", "anxin_gate", "anxin_worker"},
    "second_factors.secret": {"anxin_door"},
    "recovery_codes.code_hash": {"anxin_door"},
    "outside_logins.state_hash": {"anxin_door"},
    "outside_logins.browser_hash": {"anxin_door"},
    "outside_logins.verifier": {"anxin_door"},
    "enrolments.code_hash": {"anxin_gate"},
    "audit.hash": {"anxin_api", "anxin_gate", "anxin_worker"},
    "audit_checkpoints.hash": {"anxin_gate", "anxin_worker"},
    "person_keys.wrapped": {"anxin_api", "anxin_gate"},
}
"""Who may read what opens something. A column that sounds like it and is not here is a hole."""

# Of the database itself, what extensions brought aside.
_OURS = """
    n.nspname !~ '^(pg_|information_schema$|_?timescaledb)'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = {oid} AND d.deptype = 'e')
"""
_RELATIONS = f"""
    SELECT c.oid, c.oid::regclass::text AS name, c.relkind, pg_get_userbyid(c.relowner) AS owner,
           c.relrowsecurity AND c.relforcerowsecurity AS fenced,
           coalesce('security_invoker=true' = ANY(c.reloptions), false) AS as_invoker,
           c.relname IN ('telemetry', 'minute_rollup', 'hour_rollup', 'rollup_due')
           OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid
                      AND i.inhparent = 'telemetry'::regclass) AS telemetry
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_OURS.format(oid="c.oid")}
    ORDER BY name
"""
_GRANTS = f"""
    SELECT c.oid, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role,
           a.privilege_type AS command, a.is_grantable
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN LATERAL (
        SELECT x.* FROM aclexplode(c.relacl) x
        UNION
        SELECT x.* FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) x
        WHERE t.attrelid = c.oid AND NOT t.attisdropped
    ) AS a
    WHERE a.grantee <> c.relowner AND {_OURS.format(oid="c.oid")}
"""
_POLICIES = """
    SELECT p.polrelid AS oid, p.polname AS name, p.polcmd AS command, p.polpermissive,
           ARRAY(SELECT CASE WHEN r = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(r) END
                 FROM unnest(p.polroles) AS r) AS roles,
           pg_get_expr(p.polqual, p.polrelid) AS using_,
           pg_get_expr(p.polwithcheck, p.polrelid) AS check_
    FROM pg_policy p ORDER BY p.polrelid::regclass::text, p.polname
"""
_FUNCTIONS = f"""
    SELECT p.oid::regprocedure::text AS name, p.proname, pg_get_userbyid(p.proowner) AS owner,
           p.prosecdef, coalesce('search_path=public, pg_temp' = ANY(p.proconfig), false) AS fixed,
           ARRAY(SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                             ELSE pg_get_userbyid(a.grantee) END
                 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                 WHERE a.grantee <> p.proowner ORDER BY 1) AS callers
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE {_OURS.format(oid="p.oid")} ORDER BY name
"""
_SECRETS = f"""
    SELECT c.relname || '.' || t.attname AS name,
           ARRAY(SELECT r FROM unnest(%s::text[]) r
                 WHERE has_column_privilege(r, c.oid, t.attnum, 'SELECT')) AS readers
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped
    WHERE c.relkind IN ('r', 'p') AND {_OURS.format(oid="c.oid")}
      AND t.attname ~ 'password_hash|hash$|salt|^secret$|secret_hash|^verifier|^wrapped'
"""
_ROLES = """
    SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
               AS mighty,
           ARRAY(SELECT pg_get_userbyid(m.roleid) FROM pg_auth_members m
                 WHERE m.member = r.oid) AS member_of
    FROM pg_roles r WHERE rolname = ANY(%s)
"""
_SCHEMAS = """
    SELECT n.nspname AS name, a.privilege_type AS privilege,
           CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END AS role
    FROM pg_namespace n CROSS JOIN aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    WHERE n.nspname !~ '^(pg_|information_schema$|_?timescaledb)' AND a.grantee <> n.nspowner
"""


def relations(connection: Connection) -> list[dict[str, Any]]:
    """Return every table, view and sequence that is ours."""
    return connection.execute(_RELATIONS.encode()).fetchall()


def policies(connection: Connection) -> list[dict[str, Any]]:
    """Return every policy."""
    return connection.execute(_POLICIES.encode()).fetchall()


def functions(connection: Connection) -> list[dict[str, Any]]:
    """Return every function that is ours, with who may call it."""
    return connection.execute(_FUNCTIONS.encode()).fetchall()


def counts(connection: Connection) -> dict[str, int]:
    """Return how much of what the catalogue holds, for a report."""
    found = relations(connection)
    grants = connection.execute(_GRANTS.encode()).fetchall()
    return {
        "tables with row security": sum(one["relkind"] in "rp" and one["fenced"] for one in found),
        "tables and partitions of readings": sum(one["telemetry"] for one in found),
        "views": sum(one["relkind"] == "v" for one in found),
        "policies": len(policies(connection)),
        "grants on tables": len({(one["oid"], one["role"], one["command"]) for one in grants}),
        "functions": len(functions(connection)),
        "functions that look past the policies": sum(
            one["prosecdef"] for one in functions(connection)
        ),
    }


def holes(connection: Connection) -> list[str]:
    """Return, in words, all that is not covered; nothing when the fence is whole."""
    return [
        *relation_holes(connection),
        *_function_holes(connection),
        *_secret_holes(connection),
        *_role_holes(connection),
    ]


def relation_holes(connection: Connection) -> list[str]:  # noqa: C901  # one question a line
    """Return what is not covered of tables, views, sequences, their grants and policies."""
    found = {one["oid"]: one for one in relations(connection)}
    grants = connection.execute(_GRANTS.encode()).fetchall()
    rules = [one for one in policies(connection) if one["oid"] in found]
    covered = {
        (rule["oid"], role, command)
        for rule in rules
        for role in rule["roles"]
        for letter, command in COMMANDS.items()
        if rule["command"] in ("*", letter)
    }
    said = []
    for one in found.values():
        if one["relkind"] in ("m", "f"):
            said.append(f"{one['name']}: row security does not reach this kind of table")
        if one["relkind"] == "v" and not one["as_invoker"]:
            said.append(f"{one['name']}: this view shows what its owner sees")
        if one["relkind"] in ("r", "p") and not one["telemetry"] and not one["fenced"]:
            said.append(f"{one['name']}: no row security, or none for its owner")
        if one["owner"] != OWNER:
            said.append(f"{one['name']}: belongs to {one['owner']}")
    for grant in grants:
        one = found[grant["oid"]]
        what = f"{one['name']}: {grant['command']} to {grant['role']}"
        if grant["role"] not in SERVICES or grant["is_grantable"]:
            said.append(f"{what}, who is none of the services, or may hand it on")
        elif one["relkind"] == "S":
            if (one["name"], grant["role"]) != ("stream_cursor", "anxin_door"):
                said.append(f"{what}, and a sequence needs none")
        elif grant["command"] not in COMMANDS.values():
            said.append(f"{what}, which passes row security by")
        elif one["telemetry"] and grant["role"] in ("anxin_api", "anxin_door"):
            said.append(f"{what}, and readings have no policies")
        elif one["fenced"] and (*_grant(grant),) not in covered:
            said.append(f"{what} without a policy")
    granted = {(*_grant(grant),) for grant in grants}
    for rule in rules:
        name = f"{found[rule['oid']]['name']}.{rule['name']}"
        if not rule["polpermissive"] or not set(rule["roles"]) <= set(ROLES):
            said.append(f"{name}: for {rule['roles']}")
        for role in set(rule["roles"]) & set(SERVICES):
            letters = COMMANDS if rule["command"] == "*" else rule["command"]
            if not granted & {(rule["oid"], role, COMMANDS[one]) for one in letters}:
                said.append(f"{name}: a policy for {role}, which has no grant")
        if "anxin_api" in rule["roles"] and found[rule["oid"]]["name"] not in PUBLIC_FACTS:
            asked = (rule["using_"], rule["check_"])
            if any(text and not _asks_who(text) for text in asked) or not any(asked):
                said.append(f"{name}: does not ask on whose behalf")
    query = b"SELECT rulename FROM pg_rules WHERE schemaname = 'public'"
    said += [f"rule {row['rulename']}" for row in connection.execute(query).fetchall()]
    return said


def _grant(grant: dict[str, Any]) -> tuple[int, str, str]:
    return grant["oid"], grant["role"], grant["command"]


def _asks_who(text: str) -> bool:
    return any(word in text for word in ("acting_", "sees_", "manages_"))


def _function_holes(connection: Connection) -> list[str]:
    said = []
    for one in functions(connection):
        name = one["name"]
        if odd := set(one["callers"]) - set(SERVICES):
            said.append(f"{name}: may be called by {', '.join(sorted(odd))}")
        if not one["prosecdef"]:
            if one["owner"] != OWNER:
                said.append(f"{name}: belongs to {one['owner']}")
            continue
        owner = OWNER if one["proname"] in OWNERS_FUNCTIONS else "anxin_gate"
        if one["owner"] != owner:
            said.append(f"{name}: acts as {one['owner']}")
        if not one["fixed"]:
            said.append(f"{name}: looks names up where its caller says")
        if "anxin_api" in one["callers"] and one["proname"] not in REQUEST_FUNCTIONS:
            said.append(f"{name}: a request may call it and no test says what it shows")
    return said


def _secret_holes(connection: Connection) -> list[str]:
    rows = connection.execute(_SECRETS.encode(), [list(SERVICES)]).fetchall()
    return [
        f"{row['name']}: can be read by {', '.join(sorted(odd))}"
        for row in rows
        if (odd := set(row["readers"]) - SECRETS.get(row["name"], set()))
    ]


def _role_holes(connection: Connection) -> list[str]:
    said = []
    rows = connection.execute(_ROLES.encode(), [list(ROLES)]).fetchall()
    said += [f"no role {name}" for name in set(ROLES) - {row["rolname"] for row in rows}]
    for row in rows:
        if row["mighty"] or row["member_of"]:
            said.append(f"{row['rolname']}: more than an ordinary role ({row['member_of']})")
    for row in connection.execute(_SCHEMAS.encode()).fetchall():
        allowed = {"USAGE": {*ROLES}, "CREATE": {OWNER}}[row["privilege"]]
        if row["name"] != "public" or row["role"] not in allowed:
            said.append(f"schema {row['name']}: {row['privilege']} to {row['role']}")
    return said
