"""The diagrams of docs/schema.md show every table, column and reference of a migrated database."""

import psycopg
from psycopg.rows import dict_row

from tests import docs
from tests.integration import row_catalogue


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


def test_the_page_about_security_counts_what_there_is(dsn: str) -> None:
    page = (docs.DOCS / "security.md").read_text(encoding="utf-8")
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        table = docs.catalogue_table(row_catalogue.counts(connection))
    assert docs.replace_part(page, "catalogue", table) == page, "run `python -m tests.docs`"
