"""The parts of docs/ that are drawn from the code: `python -m tests.docs` writes them anew.

So are the types that the pages share with the API. Tests compare what stands there with what would
be written.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
from psycopg.rows import dict_row

from anxin.alarms import state_diagram
from anxin.config import Settings
from anxin.db.migrate import migrate
from anxin.embedded import EmbeddedPostgres
from anxin.escalation import DEFAULT_LADDERS
from anxin.retention import KEPT, days_of
from anxin.rules import PRIORITIES
from anxin.vitals import CONSCIOUSNESS, METRICS, PRESENCE
from api.app import create_app
from tests import web_types
from tests.integration import row_catalogue

DOCS: Final = Path(__file__).parent.parent / "docs"

DIAGRAMS: Final = {
    "people": ("places", "residents", "users", "role_rights", "family_links", "sessions",
               "visits", "quiet_hours", "login_attempts", "tickets", "outside_identities",
               "outside_logins"),
    "accounts": ("second_factors", "recovery_codes", "known_devices"),
    "devices": ("devices", "assignments", "device_states", "device_changes", "commands",
                "enrolments", "listening"),
    "readings": ("telemetry", "latest", "events", "minute_rollup", "hour_rollup", "rollup_due",
                 "quarantine"),
    "alarms": ("alarms", "timeline", "outbox", "receipts"),
    "escalation": ("shifts", "ladders", "escalations", "contacts", "deliveries", "receipt_news"),
    "stations": ("stations", "self_tests"),
    "risk": ("risk", "risk_history", "baselines", "observations", "model_modes", "model_states"),
    "privacy": ("person_keys", "identities", "relatives", "consents", "erasures", "erased_spans"),
    "audit": ("audit", "audit_waiting", "audit_checkpoints"),
    "office": ("imports", "limit_templates", "backups"),
}  # fmt: skip
"""Which tables stand together in one diagram of schema.md."""
NOT_DRAWN: Final = ("schema_migrations",)
"""What the migrations keep for themselves."""

_SHORT: Final = {
    "timestamp with time zone": "timestamptz",
    "timestamp with time zone[]": "timestamptz",
    "double precision": "double",
}


def replace_part(page: str, name: str, part: str) -> str:
    """Return the page with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- {name}: drawn from the code -->\n", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    assert found, f"{begin!r} is missing"
    assert closed, f"{end!r} is missing"
    return f"{before}{begin}{part}{end}{after}"


def metrics_table() -> str:
    """Return the table of metrics as Markdown."""
    lines = [
        "| field | 中文 | meaning | unit | accepted | LOINC |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{one.name}` | {one.zh} | {one.en} | {one.unit or '–'} |"
        f" {one.low:g} to {one.high:.10g} | {_loinc(one.loinc)} |"
        for one in METRICS
    ]
    for field, zh, meaning, values, loinc in (
        ("presence", "在床 / 在场", "presence", sorted(PRESENCE), None),
        ("consciousness", "意识", "consciousness (ACVPU)", CONSCIOUSNESS, "67775-7"),
        ("oxygen", "吸氧", "on supplementary oxygen", ("true", "false"), "3150-6"),
    ):
        accepted = ", ".join(f"`{value}`" for value in values)
        lines.append(f"| `{field}` | {zh} | {meaning} | – | {accepted} | {_loinc(loinc)} |")
    return "\n".join(lines) + "\n"


def routes_table() -> str:
    """Return every route of the API as Markdown, with the sentence of its function."""
    lines = ["| route | what |", "|---|---|"]
    for path, methods in sorted(create_app(Settings()).openapi()["paths"].items()):
        for method, route in methods.items():
            sentence = " ".join(route["description"].split("\n\n")[0].split())
            lines.append(f"| `{method.upper()} {path}` | {sentence.replace('|', '&#124;')} |")
    return "\n".join(lines) + "\n"


def states() -> str:
    """Return the life of an alarm as a mermaid state diagram."""
    return f"```mermaid\n{state_diagram()}\n```\n"


def ladders_table() -> str:
    """Return the ladders that stand where a place has none of its own."""
    lines = ["| priority | after | audience | ways |", "|---|---|---|---|"]
    for priority, ladder in DEFAULT_LADDERS.items():
        lines += [
            f"| `{PRIORITIES[priority]}` | {one.after_seconds} s | `{one.audience}` |"
            f" {', '.join(f'`{way}`' for way in one.channels)} |"
            for one in ladder.steps
        ]
    return "\n".join(lines) + "\n"


def retention_table() -> str:
    """Return as Markdown how long what is kept."""
    lines = ["| what | tables | kept | since | setting |", "|---|---|---|---|---|"]
    for kept in KEPT:
        days = days_of(kept, Settings())
        tables = ", ".join(f"`{table}`" for table in kept.tables)
        period = f"{days} day{'s' if days != 1 else ''}" if days else "not at all"
        setting = f"`ANXIN_{kept.setting.upper()}`" if kept.setting else "fixed"
        lines.append(f"| {kept.zh} · {kept.en} | {tables} | {period} | {kept.since} | {setting} |")
    return "\n".join(lines) + "\n"


def diagram(connection: "psycopg.Connection[tuple[object, ...]]", tables: tuple[str, ...]) -> str:
    """Return a mermaid ER diagram of these tables as the database has them."""
    keys = _keys(connection)
    lines = ["```mermaid", "erDiagram"]
    references = [
        (parent, child, column)
        for (child, column), parent in sorted(_references(connection).items())
        if child in tables
    ]
    for parent, child, column in references:
        lines.append(f'    {parent} ||--o{{ {child} : "{column}"')
    for table in tables:
        lines.append(f"    {table} {{")
        for column, type_ in _columns(connection, table):
            marks = [mark for mark, members in (("PK", keys.get(table, ())),) if column in members]
            if (table, column) in _references(connection):
                marks.append("FK")
            lines.append(f"        {type_} {column} {', '.join(marks)}".rstrip())
        lines.append("    }")
    return "\n".join([*lines, "```"]) + "\n"


def tables_of(connection: "psycopg.Connection[tuple[object, ...]]") -> set[str]:
    """Return every table, without the partitions of one."""
    query = (
        "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    return {str(row[0]) for row in connection.execute(query)} - set(NOT_DRAWN)


def _columns(
    connection: "psycopg.Connection[tuple[object, ...]]", table: str
) -> list[tuple[str, str]]:
    query = (
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return [
        (str(name), _SHORT.get(str(type_), re.sub(r"\W+", "_", str(type_)).strip("_")))
        for name, type_ in connection.execute(query, [table])
    ]


def _keys(connection: "psycopg.Connection[tuple[object, ...]]") -> dict[str, set[str]]:
    query = (
        "SELECT conrelid::regclass::text, attname FROM pg_constraint"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey) WHERE contype = 'p'"
    )
    keys: dict[str, set[str]] = {}
    for table, column in connection.execute(query):
        keys.setdefault(str(table), set()).add(str(column))
    return keys


def _references(
    connection: "psycopg.Connection[tuple[object, ...]]",
) -> dict[tuple[str, str], str]:
    query = (
        "SELECT conrelid::regclass::text, attname, confrelid::regclass::text FROM pg_constraint"
        " JOIN pg_attribute ON attrelid = conrelid AND attnum = ANY (conkey) WHERE contype = 'f'"
    )
    return {
        (str(child), str(column)): str(parent)
        for child, column, parent in connection.execute(query)
    }


def _loinc(code: str | None) -> str:
    return f"[{code}](https://loinc.org/{code}/)" if code else "local"


def catalogue_table(counts: Mapping[str, int]) -> str:
    """Return what there is to fence, counted."""
    rows = [f"| {what} | {count} |" for what, count in counts.items()]
    return "\n".join(["", "| what | how many |", "|---|---:|", *rows, "", ""])


def write() -> None:
    """Write every drawn part anew."""
    web_types.FILE.write_text(web_types.described(), "utf-8")
    for file, name, part in (
        ("metrics", "metrics", metrics_table()),
        ("routes", "routes", routes_table()),
        ("alarms", "states", states()),
        ("alarms", "ladders", ladders_table()),
        ("privacy", "retention", retention_table()),
    ):
        page = DOCS / f"{file}.md"
        page.write_text(replace_part(page.read_text("utf-8"), name, part), "utf-8")
    directory = Path(tempfile.mkdtemp(prefix="anxin-docs-"))
    directory.chmod(0o711)
    with EmbeddedPostgres(directory) as server:
        migrate(server.dsn)
        with psycopg.connect(server.dsn) as connection:
            page = DOCS / "schema.md"
            text = page.read_text("utf-8")
            for name, tables in DIAGRAMS.items():
                text = replace_part(text, name, diagram(connection, tables))
            page.write_text(text, "utf-8")
        with psycopg.connect(server.dsn, row_factory=dict_row) as connection:
            page = DOCS / "security.md"
            part = catalogue_table(row_catalogue.counts(connection))
            page.write_text(replace_part(page.read_text("utf-8"), "catalogue", part), "utf-8")
    shutil.rmtree(directory)


if __name__ == "__main__":
    write()
