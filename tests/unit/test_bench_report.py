"""The table of the benchmarks: percentiles, goals, and what is said when one is missed."""

from datetime import UTC, datetime

import pytest

from bench.report import Goal, Table, number, percentile, report


def test_percentile_is_the_smallest_value_that_enough_others_do_not_exceed() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
    assert percentile([1.0, 2.0], 0.99) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(140_381.4, "140,381"), (54.0, "54"), (3.7284, "3.73"), (0.0812, "0.0812"), (0.0, "0")],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_a_goal_is_judged_by_the_median_of_the_rounds() -> None:
    table = Table()
    for value in (35_000.0, 41_000.0, 90_000.0):
        table.note("messages/s", "/s", value, Goal(40_000, at_least=True))
    for value in (9.0, 11.0, 12.0):
        table.note("processor time", "µs", value, Goal(10))
    table.note("no goal", "ms", 3.0)
    assert [figure.what for figure in table.missed()] == ["processor time"]
    text = str(table)
    assert "| messages/s | ≥ 40,000 /s | 41,000 /s | 35,000 to 90,000 | met |" in text
    assert "| processor time | ≤ 10 µs | 11 µs | 9 to 12 | NOT met |" in text
    assert "| no goal |  | 3 ms |  |  |" in text


def test_the_page_says_when_a_figure_falls_short() -> None:
    table = Table()
    table.note("processor time", "µs", 11.0, Goal(10))
    page = report(table, "make bench", 1, "PostgreSQL 18", datetime(2026, 1, 2, tzinfo=UTC))
    assert "1 of the figures fall short" in page
    table = Table()
    table.note("processor time", "µs", 9.0, Goal(10))
    page = report(table, "make bench", 1, "PostgreSQL 18", datetime(2026, 1, 2, tzinfo=UTC))
    assert "Every goal is met." in page
