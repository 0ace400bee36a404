"""The risk duty: looks at every resident with new readings, scores them, and tells what follows.

It never touches an alarm of a rule: it raises and recovers its own three kinds only. Several
workers share the residents by shards; what is remembered of them lives here, in arrays.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge

from anxin.db.intake import Raise, Recover
from anxin.db.risk_tick import CHUNK, RiskTick, Score
from anxin.errors import AnxinError, DatabaseUnavailable
from anxin.logs import log
from anxin.rules import Class
from models import policy, tick
from models.baseline import NUMBERS, WINDOW_DAYS, learn, usual_of
from models.explain import record
from models.learned import Learned
from models.news2 import BANDS
from models.policy import KINDS, Decided, Layer
from models.tick import SIGNS, VITALS, Heard, Judged, LayerScore, Ward

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LOOK_SECONDS: Final = 15.0
OVERLAP: Final = timedelta(seconds=30)
"""What was committed late is looked at once more."""
WHOLE_SECONDS: Final = 60.0
"""So often everything is looked at: who is a resident, what each model may do, every device."""
REST_SECONDS: Final = 60.0
"""After a defect everything is loaded anew, which costs; not more often than this."""
BUNDLE_SECONDS: Final = 6 * 3600.0
RENEW_SECONDS: Final = 300.0
"""A score that does not change is written so often, so that it does not look forgotten."""
REMEMBER_SECONDS: Final = 3600.0
NOTICEABLE: Final = 0.02
"""A change of the learned score that is worth writing."""
LEARN_AT_ONCE: Final = 32
LEARN_SECONDS: Final = 86_400.0
FILL_AT_ONCE: Final = 500
SETTLED_SECONDS: Final = 240.0
"""So long after the hour its means are taken."""
Episodes = Mapping[tuple[int, str], Mapping[str, Any]]
"""The model's own alarms, open or closed lately, by resident and kind."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_log = log(__name__)


CLASSES: Final[Mapping[str, Class]] = {
    "early_warning": "physiological", "risk_rising": "physiological", "unusual": "behavioural",
}  # fmt: skip
"""The model's own kinds of alarms."""
SITES_SECONDS: Final = 3600.0
LABEL_DAYS: Final = 90.0
WORSE: Final = (
    "近 90 天属实率 {model:.0%}，低于早期预警评分的 {news2:.0%}，已转为试运行 · "
    "real in {model:.0%} of its alarms of 90 days, NEWS2 in {news2:.0%}: back on trial"
)


class Metrics:
    """What Prometheus reads of the risk duty."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register beside the worker's other metrics."""
        self.residents = Gauge(
            "anxin_risk_residents", "residents that this worker judges", registry=registry
        )
        self.shards = Gauge("anxin_risk_shards", "shards that this worker holds", registry=registry)
        self.scored = Counter("anxin_risk_scored", "residents scored", registry=registry)
        self.failed = Counter(
            "anxin_risk_failed", "residents whose batch could not be judged", registry=registry
        )
        self.alarms = Counter(
            "anxin_risk_alarms", "alarms of the model raised", ["kind"], registry=registry
        )
        self.findings = Counter(
            "anxin_risk_set_aside", "values that no score looked at", ["reason"],
            registry=registry,
        )  # fmt: skip
        self.usable = Gauge(
            "anxin_risk_model_usable", "whether the learned layers are used", registry=registry
        )


@dataclass(slots=True)
class Written:
    """How each row of the ward was written last."""

    rows: int
    at_s: Floats = field(init=False)
    remembered_s: Floats = field(init=False)
    score: Ints = field(init=False)
    most: Ints = field(init=False)
    band: Ints = field(init=False)
    priority: Ints = field(init=False)
    deterioration: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Nothing was written yet."""
        for name in ("at_s", "remembered_s"):
            setattr(self, name, np.full(self.rows, -np.inf))
        for name in ("score", "most", "band", "priority"):
            setattr(self, name, np.full(self.rows, -1, np.int64))
        self.deterioration = np.full(self.rows, np.nan)


class Failed(AnxinError):
    """The risk duty has a defect (see the log before this). Rules go on; it begins anew."""


class RiskDuty:
    """The duty of one worker: an async context manager; `tick` is called every other second."""

    def __init__(
        self, dsn: str, zone: ZoneInfo, metrics: Metrics, artefacts: Path | None = None
    ) -> None:
        """Prepare; `zone` is by whose clock days go, `artefacts` where models are kept."""
        self._learned = Learned(artefacts)
        self._store = RiskTick(dsn)
        self._zone = zone
        self._metrics = metrics
        self._mine: frozenset[int] = frozenset()
        self._ward = _empty()
        self._written = Written(0)
        self._look_at = self._whole_at = self._sites_at = self._rest_until = -np.inf
        self._since = EPOCH
        self._unfilled = False
        self._modes = np.zeros((len(policy.LAYERS), 0), np.int8)

    async def __aenter__(self) -> Self:
        """Begin; nothing connects before the first tick."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the shards up at once."""
        await self._store.close()

    async def tick(self) -> int:
        """Hold one's shards and, when it is time, judge; return how many were scored.

        Whatever goes wrong here is told and stays here: alarms of rules, and the ladders that the
        same worker climbs, go on. Raises DatabaseUnavailable, or Failed to be counted.
        """
        if time.monotonic() < self._rest_until:
            return 0
        try:
            return await self._tick()
        except DatabaseUnavailable:
            self._forget()
            raise
        except Exception as error:
            _log.exception("risk_defect")
            self._forget()
            await self._store.close()
            self._rest_until = time.monotonic() + REST_SECONDS
            raise Failed from error

    async def _tick(self) -> int:
        mine = await self._store.shares()
        began = time.monotonic()
        if mine != self._mine:
            self._whole_at = self._look_at = -np.inf
        self._metrics.shards.set(len(mine))
        if began < self._look_at or not mine:
            self._mine = mine
            return 0
        now = await self._store.now()
        whole = began >= self._whole_at
        if whole:
            await self._meet(now)
            self._whole_at = began + WHOLE_SECONDS
        self._mine = mine
        scored = await self._look(now, whole=whole)
        self._look_at = began + LOOK_SECONDS
        return scored

    def look_now(self) -> None:
        """Let the next tick judge, whenever the last one did."""
        self._look_at = -np.inf

    def _forget(self) -> None:
        """Others may have taken the shards over: what is remembered is no longer right."""
        self._mine = frozenset()
        self._ward, self._written = _empty(), Written(0)
        self._since = EPOCH

    async def _meet(self, now: datetime) -> None:
        """Renew who is judged here, with all that is stored of those who are new."""
        members = await self._store.members()
        before = self._ward
        ward = Ward(
            members.id, members.place, members.station, members.scale2 > 0, members.age, members.sex
        )
        ward.ring_hour = int(now.timestamp() // tick.HOUR_S)
        if len(before):
            ward = before.follow_members(ward)
        written = Written(len(ward))
        rows = before.rows_of(ward.id)
        there = rows >= 0
        for name in Written.__slots__[1:]:
            getattr(written, name)[there] = getattr(self._written, name)[rows[there]]
        self._ward, self._written = ward, written
        self._metrics.residents.set(len(ward))
        self._modes = await self._read_modes()
        await asyncio.to_thread(self._learned.reload)
        if not there.all():
            self._since = EPOCH
            await self._recall(ward, np.flatnonzero(~there))

    async def _recall(self, ward: Ward, rows: Ints) -> None:
        """Load what is stored of these rows: what is usual, the last scores, the past hours."""
        new = np.zeros(len(ward), np.bool_)
        new[rows] = True
        residents, at_s, numbers = await self._store.baselines(NUMBERS)
        place = ward.rows_of(residents)
        known = (place >= 0) & new[np.maximum(place, 0)]
        ward.baselines.numbers[:, place[known]] = numbers[:, known]
        ward.learned_s[place[known]] = at_s[known]
        last = await self._store.last_scores()
        place = ward.rows_of(last["resident"])
        known = (place >= 0) & new[np.maximum(place, 0)]
        for name in ("priority", "band"):
            getattr(self._written, name)[place[known]] = last[name][known]
        self._written.remembered_s[place[known]] = last["at"][known]
        await self._fill(ward, rows, tick.HOURS)
        peaks = await self._store.peaks(policy.BUNDLE_S)
        self._learned.recall(ward, peaks, await self._store.told(policy.BUNDLE_S))

    async def _fill(self, ward: Ward, rows: Ints, hours: int) -> None:
        """Take the means of the last hours from the rollups, some residents at a time."""
        end = EPOCH + timedelta(hours=ward.ring_hour)
        for first in range(0, len(rows), FILL_AT_ONCE):
            some = ward.id[rows[first : first + FILL_AT_ONCE]]
            found = await self._store.hours(some.tolist(), end - timedelta(hours=hours), end)
            ward.fill(found["resident"], found["hour"], np.stack([found[name] for name in VITALS]))

    async def _look(self, now: datetime, *, whole: bool) -> int:
        """Judge everybody about whom there is news."""
        ward = self._ward
        loading = self._since == EPOCH
        news = await self._gather(now, since=EPOCH if whole else self._since - OVERLAP)
        found = await self._store.episodes(BUNDLE_SECONDS)
        if loading:
            tick.remember(ward, found)
        still = ward.rows_of(
            np.array([one["resident_id"] for one in found if one["handling"] != "closed"], np.int64)
        )
        rows = np.union1d(news, tick.pending(ward, still[still >= 0]))
        episodes = {(one["resident_id"], one["kind"]): one for one in found}
        residents, highest = await self._store.alarmed()
        alarmed = ward.rows_of(residents)
        rules = np.zeros(len(ward), np.int8)
        rules[alarmed[alarmed >= 0]] = highest[alarmed >= 0]
        for first in range(0, len(rows), CHUNK):
            some = rows[first : first + CHUNK]
            await self._judge_some(some, now, rules[some], episodes)
        await self._learn(now, alarmed[alarmed >= 0])
        if whole:
            await self._watch_over()
        return len(rows)

    async def _gather(self, now: datetime, since: datetime) -> Ints:
        """Take all that came since then; return the rows about whom it is news."""
        ward, loading = self._ward, self._since == EPOCH
        touched = [np.empty(0, np.int64)]
        for row in await self._store.newest(since):
            rows, findings = await asyncio.to_thread(tick.take, ward, _heard(row), loading=loading)
            touched.append(rows)
            for finding in findings:
                self._metrics.findings.labels(finding.reason).inc(finding.count)
        seen_since = now - timedelta(days=1) if loading else self._since - OVERLAP
        touched.append(tick.observe(ward, await self._store.observed(seen_since)))
        self._since = now
        if ward.turn(now.timestamp()):
            self._unfilled = True
        if self._unfilled and now.timestamp() % tick.HOUR_S >= SETTLED_SECONDS:
            self._unfilled = False
            await self._fill(ward, np.arange(len(ward)), 2)
        return np.unique(np.concatenate(touched))

    async def _judge_some(
        self, rows: Ints, now: datetime, rules: NDArray[np.int8], episodes: Episodes
    ) -> None:
        """Judge a batch and write what follows; a defect costs this batch its look, no more."""
        try:
            scores, alarms = await asyncio.to_thread(self._judge, rows, now, rules, episodes)
            if scores or alarms:
                await self._store.keep(scores, alarms)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  one resident's defect must not blind a town
            _log.error("risk_batch_failed", residents=len(rows), error=type(error).__name__)
            self._metrics.failed.inc(len(rows))
            tick.untell(self._ward, rows)  # what was to be told may not have been
            return
        self._metrics.scored.inc(len(rows))
        for alarm in alarms:
            if isinstance(alarm, Raise):
                self._metrics.alarms.labels(alarm.kind).inc()

    async def _watch_over(self) -> None:
        """Keep budgets and the verdict on drift; who holds the first shard tells how models do."""
        await asyncio.to_thread(self._learned.keep_budgets, self._ward)
        fault = self._learned.fault
        self._metrics.usable.set(fault is None)
        if 0 not in self._mine:
            return
        await self._store.keep_state("news2", version="RCP 2017", fault=None, state="{}")
        for layer in ("deterioration", "novelty"):
            await self._store.keep_state(
                layer,
                version=self._learned.version,
                fault=fault,
                state=self._learned.state(layer),
            )
        began = time.monotonic()
        if began < self._sites_at:
            return
        self._sites_at = began + SITES_SECONDS
        for site in await self._store.labels(LABEL_DAYS):
            verdict = await asyncio.to_thread(
                policy.judge_site,
                np.array(site["resident"]),
                np.array(site["of_model"]) > 0,
                np.array(site["real"]) > 0,
            )
            if not verdict.switch_off or not self._alarms_at(site["station"]):
                continue
            why = WORSE.format(model=verdict.model, news2=verdict.news2)
            if await self._store.set_mode("deterioration", site["station"], "shadow", why):
                _log.warning("model_switched_off", model="deterioration", place=site["station"])

    def _alarms_at(self, station: int) -> bool:
        modes = self._modes[policy.LAYERS.index("deterioration"), self._ward.station == station]
        return bool((modes == policy.MODES.index("alarming")).any())

    def _judge(
        self, rows: Ints, now: datetime, rules: NDArray[np.int8], episodes: Episodes
    ) -> tuple[list[Score], list[Raise | Recover]]:
        """Score these rows; return what is to be written of them and what follows."""
        ward = self._ward
        local = now.astimezone(self._zone)
        judged = tick.judge(ward, rows, now.timestamp(), local.hour + local.minute / 60)
        learned = self._learned.scores(ward, judged)
        decided = tick.decide(ward, judged, learned, rules, self._modes[:, rows])
        priority = np.where(decided.layer == policy.RULES, 0, decided.priority)
        return (
            self._scores(judged, learned, priority.astype(np.int64)),
            [*self._alarms(judged, learned, decided, episodes)],
        )

    def _alarms(
        self,
        judged: Judged,
        learned: Sequence[LayerScore],
        decided: Decided,
        episodes: Episodes,
    ) -> Iterator[Raise | Recover]:
        """Yield what is to be raised and recovered, of the model's own kinds only."""
        row_of = {int(row): place for place, row in enumerate(judged.rows)}
        for place in np.flatnonzero(decided.tell).tolist():
            layer = policy.LAYERS[decided.layer[place]]
            yield self._raise(
                judged, learned, place, layer, KINDS[layer], int(decided.priority[place])
            )
        for (resident, kind), episode in episodes.items():
            here = row_of.get(int(self._ward.rows_of(np.array([resident]))[0]))
            if here is None or episode["handling"] == "closed":
                continue
            layers = [policy.LAYERS.index(layer) for layer in KINDS if KINDS[layer] == kind]
            asks = any(decided.speaking[layer, here] for layer in layers)
            row = int(judged.rows[here])
            if episode["condition"] == "present":
                if not asks and all(
                    tick.recovered(self._ward, layer, row, judged.now_s) for layer in layers
                ):
                    yield Recover(f"r{resident}", kind, "worker")
            elif asks and not decided.tell[here]:
                layer = next(policy.LAYERS[one] for one in layers if decided.speaking[one, here])
                yield self._raise(judged, learned, here, layer, kind, episode["priority"])

    async def _read_modes(self) -> NDArray[np.int8]:
        """Return (layers, rows): what each may do."""
        modes = np.zeros((len(policy.LAYERS), len(self._ward)), np.int8)
        for one in await self._store.modes():
            layer, mode = policy.LAYERS.index(one["model"]), policy.MODES.index(one["mode"])
            if one["place_id"] is None:
                modes[layer] = mode
                continue
            rows = self._ward.rows_of(np.array(one["residents"] or [], np.int64))
            modes[layer, rows[rows >= 0]] = mode
        return modes

    def _raise(
        self,
        judged: Judged,
        learned: Sequence[LayerScore],
        place: int,
        layer: Layer,
        kind: str,
        priority: int,
    ) -> Raise:
        row = int(judged.rows[place])
        resident = int(self._ward.id[row])
        risk = _score_of(learned, "deterioration", place)
        explanation = tick.explained(
            self._ward,
            judged,
            place,
            model=self._learned.name,
            layer=layer,
            priority=priority,
            risk=risk,
            shares=None if risk is None else self._learned.shares(self._ward, judged, place),
        )
        return Raise(
            subject=f"r{resident}",
            resident_id=resident,
            place_id=int(self._ward.place[row]),
            device_key=None,
            kind=kind,
            class_=CLASSES[kind],
            priority=priority,
            event_us=round(judged.now_s * 1_000_000),
            late=False,
            count=1,
            detail=record(explanation),
            actor="worker",
        )

    def _scores(self, judged: Judged, learned: Sequence[LayerScore], priority: Ints) -> list[Score]:
        """Return the rows that are worth writing, and remember how they were written."""
        written, rows, found = self._written, judged.rows, judged.news2
        band = found.band.astype(np.int64)
        risk = next(
            (one.score for one in learned if one.layer == "deterioration"),
            np.full(len(rows), np.nan),
        )
        turned = (band != written.band[rows]) | (priority != written.priority[rows])
        remember = turned | (judged.now_s - written.remembered_s[rows] >= REMEMBER_SECONDS)
        before = written.deterioration[rows]
        with np.errstate(invalid="ignore"):
            moved = (np.abs(risk - before) >= NOTICEABLE) | (np.isnan(risk) != np.isnan(before))
            data_s = np.fmax.reduce(judged.at_s, axis=0)
        changed = (
            remember
            | moved
            | (found.score != written.score[rows])
            | (found.possible_max != written.most[rows])
            | (judged.now_s - written.at_s[rows] >= RENEW_SECONDS)
        )
        chosen = np.flatnonzero(changed)
        some = rows[chosen]
        written.at_s[some] = judged.now_s
        written.remembered_s[rows[remember]] = judged.now_s
        written.score[some], written.most[some] = found.score[chosen], found.possible_max[chosen]
        written.band[some], written.priority[some] = band[chosen], priority[chosen]
        written.deterioration[some] = risk[chosen]
        strange = any(one.layer == "novelty" for one in learned)
        return [
            Score(
                resident_id=int(self._ward.id[rows[place]]),
                data_at_s=_known(data_s[place]),
                score=int(found.score[place]),
                possible_max=int(found.possible_max[place]),
                complete=bool(found.complete[place]),
                band=BANDS[band[place]],
                deterioration=_known(risk[place]),
                novelty=_known(self._ward.novelty[rows[place]]) if strange else None,
                priority=int(priority[place]),
                model=self._learned.name,
                explanation=msgspec.json.encode(
                    record(
                        tick.explained(
                            self._ward,
                            judged,
                            place,
                            model=self._learned.name,
                            risk=_known(risk[place]),
                        )
                    )
                ).decode(),
                remember=bool(remember[place]),
            )
            for place in chosen.tolist()
        ]

    async def _learn(self, now: datetime, alarmed: Ints) -> None:
        """Learn anew what is usual for some residents whose turn has come, and store it."""
        ward, now_s = self._ward, now.timestamp()
        due = np.flatnonzero(now_s - ward.learned_s >= LEARN_SECONDS)[:LEARN_AT_ONCE]
        if not len(due):
            return
        hours = WINDOW_DAYS * 24
        end = EPOCH + timedelta(hours=ward.ring_hour)
        start = end - timedelta(hours=hours)
        found = await self._store.hours(ward.id[due].tolist(), start, end)
        frozen = np.isin(due, alarmed)
        await asyncio.to_thread(self._learnt, due, found, ward.ring_hour - hours, frozen, now_s)
        await self._store.keep_baselines(
            ward.id[due],
            np.full(len(due), now_s),
            ward.baselines.numbers[:, due],
            tick.usual_words(ward, due, now.astimezone(self._zone).hour),
        )

    def _learnt(
        self, due: Ints, found: Mapping[str, Any], first_hour: int, frozen: Bools, now_s: float
    ) -> None:
        ward, hours = self._ward, WINDOW_DAYS * 24
        hourly = np.full((len(due), hours, len(VITALS)), np.nan)
        place = np.searchsorted(ward.id[due], found["resident"])
        hour = found["hour"] - first_hour
        there = (hour >= 0) & (hour < hours)
        for vital, name in enumerate(VITALS):
            hourly[place[there], hour[there], vital] = found[name][there]
        offset = datetime.fromtimestamp(now_s, self._zone).utcoffset() or timedelta()
        local = (first_hour + np.arange(hours) + offset / timedelta(hours=1)) % 24
        days = np.clip((now_s - ward.learned_s[due]) / LEARN_SECONDS, 1, WINDOW_DAYS)
        learn(ward.baselines, due, usual_of(hourly, local), days, frozen)
        ward.learned_s[due] = now_s


def _score_of(learned: Sequence[LayerScore], layer: Layer, place: int) -> float | None:
    return next((_known(one.score[place]) for one in learned if one.layer == layer), None)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _heard(row: Mapping[str, Any]) -> Heard:
    return Heard(
        row["device"],
        row["resident"],
        row["ts"],
        row["received"],
        row["since"],
        row["presence"].astype(np.int64),
        np.stack([row[name] for name in SIGNS]),
        np.stack([row[f"{name}_at"] for name in SIGNS]),
    )


def _empty() -> Ward:
    nobody = np.empty(0)
    number = np.empty(0, np.int64)
    return Ward(number, number, number, np.empty(0, np.bool_), nobody, nobody)
