"""A batch as columns: order, times, ranges, duplicates."""

import json
from typing import Any

import numpy as np
import pytest

from anxin.vitals import COLUMN
from ingest.columns import AHEAD, BEHIND, LATE, Columns, Refusal, copy_rows, gather
from ingest.inbound import Device, Inbound, Kind

NOW_US = 1_800_000_000_000_000
NOW_MS = NOW_US // 1000
MAT, CUFF = Device("mat", 11, 0), Device("cuff", 12, 1)


def arrived(*payloads: Any, device: Device = MAT) -> Inbound:
    """Return payloads as they come from one device now."""
    encoded = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in payloads]
    return Inbound(device, Kind.TELEMETRY, encoded, NOW_US, lambda _: None)


def columns(*inbounds: Inbound) -> tuple[Columns, list[Refusal]]:
    """Gather a batch with nothing before it."""
    return gather(inbounds, {})


def test_readings_are_sorted_by_device_and_time() -> None:
    found, _ = columns(
        arrived({"ts": NOW_MS, "sbp": 120}, device=CUFF),
        arrived({"ts": NOW_MS, "hr": 71}, {"ts": NOW_MS - 5000, "hr": 70}),
    )
    assert found.keys.tolist() == [11, 11, 12]
    assert found.values[:, COLUMN["hr"]].tolist()[:2] == [70, 71]


def test_the_same_device_and_time_is_one_reading_and_the_first_value_stays() -> None:
    found, _ = columns(
        arrived({"ts": NOW_MS, "sbp": 120}, {"ts": NOW_MS, "sbp": 130, "hr": 60, "x": 1})
    )
    assert len(found) == 1
    assert found.values[0, COLUMN["sbp"]] == 120
    assert found.values[0, COLUMN["hr"]] == 60
    assert found.extra == [{"x": 1}]


def test_readings_without_a_time_never_share_one() -> None:
    last: dict[int, int] = {}
    first, _ = gather([arrived({"hr": 70}, {"hr": 71})], last)
    second, _ = gather([arrived({"hr": 72})], last)
    times = [*first.ts_us.tolist(), *second.ts_us.tolist()]
    assert times == [NOW_US, NOW_US + 1, NOW_US + 2]


@pytest.mark.parametrize(
    ("seconds", "flags"),
    [(0, 0), (119, 0), (121, AHEAD), (-599, 0), (-601, LATE), (-7 * 86_400 - 1, LATE | BEHIND)],
)
def test_clocks_that_are_off_are_flagged(seconds: int, flags: int) -> None:
    found, _ = columns(arrived({"ts": NOW_MS + seconds * 1000, "hr": 70}))
    assert found.flags.tolist() == [flags]
    assert found.usable.tolist() == [flags == 0]


def test_a_value_out_of_range_is_refused_and_its_neighbours_are_kept() -> None:
    found, refusals = columns(
        arrived({"hr": 72, "temp": 0}, {"hr": 73}, {"spo2": 101}), arrived({"sbp": 1}, device=CUFF)
    )
    assert np.isnan(found.values[0, COLUMN["temp"]])
    assert found.values[:2, COLUMN["hr"]].tolist() == [72, 73]
    assert len(found) == 3
    assert [one.reason for one in refusals] == [
        "temp: outside 20 to 45 °C",
        "spo2: outside 0 to 100 %",
    ]


def test_a_bad_payload_does_not_touch_the_others_of_its_run() -> None:
    found, refusals = columns(arrived({"hr": 70}, b"{broken", {"hr": 71}))
    assert len(found) == 2
    assert [one.payload for one in refusals] == [b"{broken"]


def test_an_empty_batch_is_a_valid_copy() -> None:
    found, refusals = columns(arrived(b"no"))
    assert len(found) == 0
    assert len(refusals) == 1


def test_the_copy_form_ends_as_postgres_wants_it() -> None:
    found, _ = columns(arrived({"hr": 70, "steps": 3}, {"rr": 12, "y": 2.5}))
    rows = copy_rows(found)
    assert rows.startswith(b"PGCOPY\n\xff\r\n\0")
    assert rows.endswith(b'{"y":2.5}\xff\xff')
