"""The diagrams of docs/schema.md show every table, column and reference of a migrated database."""

import psycopg

from tests import docs


def test_every_table_stands_in_exactly_one_diagram(dsn: str) -> None:
    drawn = [table for tables in docs.DIAGRAMS.values() for table in tables]
    with psycopg.connect(dsn) as connection:
        assert sorted(drawn) == sorted(docs.tables_of(connection))


def test_the_diagrams_are_as_the_database_has_it(dsn: str) -> None:
    page = (docs.DOCS / "schema.md").read_text(encoding="utf-8")
    with psycopg.connect(dsn) as connection:
        for name, tables in docs.DIAGRAMS.items():
            drawn = docs.replace_part(page, name, docs.diagram(connection, tables))
            assert drawn == page, f"{name}: run `python -m tests.docs`"
