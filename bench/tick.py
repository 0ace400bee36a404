"""`python -m bench.tick`: what it costs to judge everybody, on one core.

First the computing alone (NEWS2, baseline, learned model) at 10,000 residents; then the whole look
at 20,000 with a database of its own, everything that computes or stores pinned to one core: new
readings of every resident are in the table before each look, a few of them with another score.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from prometheus_client import CollectorRegistry

from anxin.db.migrate import migrate
from anxin.db.pool import Connection, as_role, connect
from anxin.db.risk_tick import CHUNK
from anxin.embedded import EmbeddedPostgres
from anxin.errors import AnxinError
from bench.report import Goal, Table, report
from models import tick
from models.learned import NAME, Learned
from models.risk import Metrics, RiskDuty
from models.tick import SIGNS, VITALS, Ward

COMPUTED: Final = 10_000
WHOLE: Final = 20_000
ZONE: Final = ZoneInfo("Asia/Shanghai")
USUAL: Final = np.array([72.0, 16.0, 97.0, 36.6, 128.0, 74.0])
SPREAD: Final = np.array([6.0, 1.5, 1.0, 0.2, 10.0, 7.0])
_PEOPLE = b"""
    WITH place AS (
        INSERT INTO places (kind, name)
        SELECT 'facility', 'house ' || n FROM generate_series(1, %(houses)s::integer) AS n
        RETURNING id
    ), numbered AS (
        SELECT id, row_number() OVER (ORDER BY id) AS n FROM place
    )
    INSERT INTO residents (name, born, sex, place_id)
    SELECT 'resident ' || g, date '1944-01-01', 'female', p.id
    FROM generate_series(1, %(count)s::integer) AS g
    JOIN numbered p ON p.n = 1 + g %% %(houses)s::integer
"""
_DEVICES = b"""
    WITH made AS (
        INSERT INTO devices (id, kind, salt, secret_hash)
        SELECT k || '-' || r.id, k, 'x', 'x'
        FROM residents r CROSS JOIN unnest('{bed_sensor,cuff}'::text[]) AS k
        RETURNING key, id
    )
    INSERT INTO assignments (device_key, resident_id, during)
    SELECT key, split_part(id, '-', 2)::bigint, tstzrange(now() - interval '60 days', NULL)
    FROM made
"""
_HOURS = b"""
    INSERT INTO hour_rollup (device_key, bucket, hr_n, hr_mean, rr_n, rr_mean, spo2_n, spo2_mean)
    SELECT d.key, date_trunc('hour', now()) - h * interval '1 hour',
           400, 70 + random(), 400, 16 + random(), 400, 97 + random()
    FROM devices d CROSS JOIN generate_series(1, 24) AS h WHERE d.kind = 'bed_sensor'
"""
_READINGS = b"""
    INSERT INTO latest (device_key, ts, received_at, metrics)
    SELECT d.key, now(), now(),
           CASE d.kind WHEN 'bed_sensor' THEN jsonb_build_object(
               'hr', jsonb_build_array(72 + round(random() * 8), ms),
               'rr', jsonb_build_array(15 + round(random() * 3), ms),
               'spo2', jsonb_build_array(96 + round(random() * 2), ms),
               'movement', jsonb_build_array(0.1, ms), 'presence', jsonb_build_array('present', ms))
           ELSE jsonb_build_object(
               'sbp', jsonb_build_array(120 + round(random() * 10), ms),
               'dbp', jsonb_build_array(74, ms), 'temp', jsonb_build_array(36.5, ms)) END
    FROM devices d, (SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms) AS moment
    ON CONFLICT (device_key) DO UPDATE SET ts = excluded.ts, received_at = excluded.received_at,
        metrics = excluded.metrics
"""
_ILL = b"""
    UPDATE latest l SET metrics = metrics || jsonb_build_object(
        'rr', jsonb_build_array(23, (metrics -> 'rr' -> 1)))
    FROM devices d WHERE d.key = l.device_key AND d.kind = 'bed_sensor'
      AND (d.key + %(round)s) %% 50 = 0
"""


def main() -> int:
    """Measure and print; 0 when all was measured, whether goals are met or not."""
    parser = argparse.ArgumentParser(prog="python -m bench.tick", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--residents", type=int, default=WHOLE)
    parser.add_argument("--artefacts", type=Path, help="where the learned model is kept")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table = Table()
    try:
        with one_core(), tempfile.TemporaryDirectory(prefix="anxin-bench-") as directory:
            folder = options.artefacts or _model(Path(directory))
            _compute(table, folder, options.rounds)
            server = _whole(table, folder, options.rounds, options.residents)
    except AnxinError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    print(report(table, "python -m bench.tick", options.rounds, server, datetime.now(UTC)))
    return 0


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and all that it starts, on one processor core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _compute(table: Table, folder: Path, rounds: int) -> None:
    ward, learned, now_s = _full_ward(), Learned(folder), 1_800_000_000.0
    learned.reload()
    rows = [np.arange(COMPUTED)[first : first + CHUNK] for first in range(0, COMPUTED, CHUNK)]
    for round_ in range(rounds + 1):
        now_s += 15
        ward.at_s[:] = now_s - 5
        spent = np.zeros(3)
        for some in rows:
            begun = time.process_time()
            judged = tick.judge(ward, some, now_s, 12.0)
            scored = time.process_time()
            scores = learned.scores(ward, judged)
            asked = time.process_time()
            rules = np.zeros(len(some), np.int8)
            modes = np.full((5, len(some)), 2, np.int8)
            tick.decide(ward, judged, scores, rules, modes)
            spent += [scored - begun, asked - scored, time.process_time() - asked]
        if not round_:
            continue  # everything is warm, and the hour's novelty is done
        each = spent / COMPUTED * 1e6
        table.note("NEWS2 and baseline", "µs a resident", each[0])
        table.note("features and learned model", "µs a resident", each[1])
        table.note("policy", "µs a resident", each[2])
        table.note("NEWS2, baseline, deterioration", "µs a resident", each[:2].sum(), Goal(15))
    table.remark(f"Computing at {COMPUTED:,} residents in batches of {CHUNK:,}: processor time.")


def _whole(table: Table, folder: Path, rounds: int, residents: int) -> str:
    directory = Path(tempfile.mkdtemp(prefix="anxin-bench-"))
    directory.chmod(0o711)
    with EmbeddedPostgres(directory) as server:
        migrate(server.dsn)
        return asyncio.run(_look(table, folder, server.dsn, rounds, residents))


async def _look(table: Table, folder: Path, dsn: str, rounds: int, residents: int) -> str:
    async with await connect(dsn, autocommit=True, application="anxin bench") as connection:
        count = {"count": residents, "houses": max(1, residents // 300)}
        await connection.execute(b"SET statement_timeout = 0")
        await connection.execute(_PEOPLE, count)
        for query in (_DEVICES, _HOURS, b"ANALYZE"):
            await connection.execute(query)
        metrics = Metrics(CollectorRegistry())
        async with RiskDuty(as_role(dsn, "anxin_worker"), ZONE, metrics, folder) as duty:
            for round_ in range(rounds + 1):
                await connection.execute(_READINGS)
                await connection.execute(_ILL, {"round": round_})
                await asyncio.sleep(2)  # the server's own chores are not what is measured
                duty.look_now()
                longest: list[float] = []
                listener = asyncio.create_task(_hear_gaps(longest))
                begun = time.perf_counter()
                scored = await duty.tick()
                spent = time.perf_counter() - begun
                listener.cancel()
                assert scored == residents, f"{scored} of {residents} were scored"  # noqa: S101
                if round_:
                    table.note(f"a look at {residents:,} residents", "s", spent, Goal(5))
                    table.note("the event loop held up, longest", "ms", max(longest), Goal(50))
                else:
                    table.note("the first look after a start, all loaded", "s", spent)
        return await _version(connection)


async def _hear_gaps(longest: list[float]) -> None:
    """Note how long the event loop did not come back, again and again, in ms."""
    last = time.perf_counter()
    while True:
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest.append((now - last) * 1000 - 1)
        last = now


async def _version(connection: Connection) -> str:
    row = await (await connection.execute(b"SELECT version() AS said")).fetchone()
    return str(row["said"]) if row else ""


def _full_ward() -> Ward:
    rng = np.random.default_rng(1)
    number = np.arange(1, COMPUTED + 1, dtype=np.int64)
    ward = Ward(
        number, number, number % 50, np.zeros(COMPUTED, np.bool_), rng.uniform(65, 95, COMPUTED),
        (rng.random(COMPUTED) < 0.4).astype(float),
    )  # fmt: skip
    ward.value[: len(VITALS)] = (USUAL + rng.normal(0, 1, (COMPUTED, 6)) * SPREAD).T
    ward.value[len(VITALS) :] = 0.0
    ward.at_s[:] = 0.0
    ward.ring[:, : len(VITALS)] = ward.value[: len(VITALS)] + rng.normal(
        0, 1, (tick.HOURS, len(VITALS), COMPUTED)
    )
    ward.baselines.usual.hours[:] = 300
    ward.baselines.usual.centre[:] = USUAL[:, None, None]
    ward.baselines.usual.spread[:] = SPREAD[:, None, None]
    return ward


def _model(directory: Path) -> Path:
    """Return a folder with a model of the usual size that has learned something made up."""
    from models import artefacts, deterioration, novelty  # noqa: PLC0415  after OMP_NUM_THREADS
    from models.deterioration import VITALS_AND_AGE  # noqa: PLC0415
    from models.examples import Examples  # noqa: PLC0415
    from models.features import BODY, HOURS, features  # noqa: PLC0415

    rng, count = np.random.default_rng(1), 8000
    values = np.full((count, HOURS, len(SIGNS)), np.nan)
    values[:, :, :BODY] = USUAL + rng.normal(0, 1, (count, HOURS, BODY)) * SPREAD
    ill = rng.random(count)
    values[:, -8:, :2] += 3 * ill[:, None, None] * SPREAD[:2]
    y = (ill + rng.normal(0, 0.2, count) > 0.9).astype(np.int64)
    age = rng.uniform(65, 95, count)
    x = features(values, age, np.ones(count), np.full((count, BODY), np.nan))
    number, always = np.arange(count), np.ones(count, np.bool_)
    taught = Examples(x, y, number, number, always, always, number % 5)
    shares = [0.1] * 10
    card = artefacts.Card(
        name=NAME, version="", made_at=datetime.now(UTC), sha256="", question="made up",
        intended_use="a measurement", limits=[], data={}, people=count, events=int(y.sum()),
        hours=count, split="none", seed=1, versions={}, learner="trees",
        columns=list(VITALS_AND_AGE), slope=1.0, intercept=0.0, thresholds={"0.25": 0.9},
        promised={}, edges=np.linspace(0.1, 0.9, 9).tolist(), shares=shares, risk_mean=0.5,
        metrics=[],
    )  # fmt: skip
    artefacts.keep(directory, card, deterioration.fit(taught, VITALS_AND_AGE), novelty.fit(taught))
    return directory


if __name__ == "__main__":
    sys.exit(main())
