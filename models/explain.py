"""Why a score is what it is: one frozen record, and the one plain sentence of it; pure."""

from collections.abc import Mapping
from math import floor, isfinite
from typing import Any, Final

import msgspec

from anxin.vitals import METRICS
from models.news2 import PARAMETERS, News2, Parameter, without_points

MOST_VITALS: Final = 3
"""So many fit into a sentence; the others stay in the record."""
UNUSUAL_Z: Final = 2.0
NOTABLE_SHARE: Final = 0.2
"""From so much of the learned score on (log odds) a vital sign is named."""
OLD_S: Final = 900.0
"""A value older than this is told with its age."""

_NAMES: Final = {metric.name: (metric.zh, metric.en) for metric in METRICS} | {
    "consciousness": ("意识", "consciousness"),
    "oxygen": ("吸氧情况", "oxygen or air"),
    "gcs": ("意识", "consciousness"),
}
_DECIMALS: Final = {"temp": 1}
_MOST: Final = 1e6
"""Nothing about a vital sign is beyond this; NaN and infinity are not either."""
_SUFFIX: Final = {"spo2": "%", "temp": "°C"}
# (check) A change less than this in the hours looked back is not worth a word.
_LEAST_CHANGE: Final = {"hr": 8.0, "rr": 3.0, "spo2": 2.0, "temp": 0.4, "sbp": 15.0, "dbp": 10.0}


class Vital(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One vital sign: what is known of it, None for what is not.

    `limit`: the end of the range without NEWS2 points that it has passed. `usual`: one's own at
    this time of day, `z` the distance from it in one's own spreads. `change` over `change_hours`.
    `share`: what it adds to the learned score.
    """

    name: str
    value: float
    age_s: float | None = None
    limit: float | None = None
    usual: float | None = None
    z: float | None = None
    change: float | None = None
    change_hours: float | None = None
    points: int | None = None
    share: float | None = None


class Words(msgspec.Struct, frozen=True):
    """The same in Chinese and English."""

    zh: str
    en: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a score was made of.

    `score` is NEWS2 only where `complete`; else it is certain points of at most `possible_max`.
    `parts`: points by parameter that was there; `missing`: those that were not. `vitals`: the most
    telling first. `layer`: who asks for the alarm. `risk`: of the learned model, 0 to 1. `notes`:
    what else was found, of the days' rhythm.
    """

    score: int
    possible_max: int
    complete: bool
    parts: dict[str, int]
    missing: tuple[str, ...]
    ages_s: dict[str, float]
    vitals: tuple[Vital, ...]
    model: str
    layer: str | None = None
    priority: int = 0
    risk: float | None = None
    notes: tuple[Words, ...] = ()


def explain(
    scores: News2,
    place: int,
    *,
    values: Mapping[str, float],
    ages_s: Mapping[str, float],
    model: str,
    usual: Mapping[str, float] | None = None,
    z: Mapping[str, float] | None = None,
    change: Mapping[str, float] | None = None,
    change_hours: float = 6.0,
    shares: Mapping[str, float] | None = None,
    layer: str | None = None,
    priority: int = 0,
    risk: float | None = None,
    notes: tuple[Words, ...] = (),
    scale2: bool = False,
) -> Explanation:
    """Gather what is known of the resident at `place` of `scores`; by name of vital sign each.

    NaN, or a name that is not there, is unknown. Ages are in seconds.
    """
    present = [bool(one) for one in scores.present[:, place]]
    parts: dict[str, int] = {
        name: int(scores.points[number, place])
        for number, name in enumerate(PARAMETERS)
        if present[number]
    }
    on_oxygen = parts.get("oxygen", 0) > 0
    vitals = []
    for name in values:
        known = _known(values, name)
        if name in {"consciousness", "oxygen", "gcs"} or known is None:
            continue
        moved = _known(change, name)
        vitals.append(
            Vital(
                name=name,
                value=known,
                age_s=_known(ages_s, name),
                limit=_limit(name, known, scale2=scale2, on_oxygen=on_oxygen),
                usual=_known(usual, name),
                z=_known(z, name),
                change=moved,
                change_hours=None if moved is None else change_hours,
                points=parts.get(name),
                share=_known(shares, name),
            )
        )
    return Explanation(
        score=int(scores.score[place]),
        possible_max=int(scores.possible_max[place]),
        complete=bool(scores.complete[place]),
        parts=parts,
        missing=tuple(name for number, name in enumerate(PARAMETERS) if not present[number]),
        ages_s={name: float(age) for name, age in ages_s.items() if isfinite(age)},
        vitals=tuple(sorted(vitals, key=_telling, reverse=True)),
        model=model,
        layer=layer,
        priority=priority,
        risk=None if risk is None else _known({"risk": risk}, "risk"),
        notes=notes,
    )


def sentence(explanation: Explanation) -> Words:
    """Return it as one plain sentence: what stands out, then the score and what it lacks."""
    clauses = [
        _vital_words(vital) for vital in explanation.vitals[:MOST_VITALS] if _stands_out(vital)
    ]
    if explanation.parts.get("consciousness"):
        clauses.append(Words("意识改变", "not alert"))
    if explanation.parts.get("oxygen"):
        clauses.append(Words("正在吸氧", "on oxygen"))
    clauses += explanation.notes
    if explanation.layer == "deterioration" and explanation.risk is not None:
        percent = _number("risk", explanation.risk * 100)
        clauses.append(Words(f"模型估计恶化风险 {percent}%", f"model: {percent}% risk of decline"))
    elif explanation.layer == "novelty":
        clauses.append(Words("组合少见", "an unusual combination"))
    if not clauses and explanation.parts:
        clauses.append(Words("无突出体征", "nothing stands out"))
    clauses.append(_score_words(explanation))
    return Words("；".join(one.zh for one in clauses), "; ".join(one.en for one in clauses))


def record(explanation: Explanation) -> dict[str, Any]:
    """Return it as it is stored and sent: plain JSON, the sentence with it."""
    plain: dict[str, Any] = msgspec.to_builtins(explanation)
    return plain | {"sentence": msgspec.to_builtins(sentence(explanation))}


def read(stored: Mapping[str, Any]) -> Explanation:
    """Return what was stored; later versions may have added to it."""
    return msgspec.convert(stored, Explanation)


def _known(told: Mapping[str, float] | None, name: str) -> float | None:
    value = None if told is None else told.get(name)
    return None if value is None or not abs(value) <= _MOST else round(float(value), 3)


def _limit(name: str, value: float, *, scale2: bool, on_oxygen: bool) -> float | None:
    parameter = _MEASURED.get(name)
    if parameter is None:
        return None
    low, high = without_points(parameter, scale2=scale2, on_oxygen=on_oxygen)
    rounded = float(_number(name, value))
    return low if rounded < low else high if rounded > high else None


_MEASURED: Final[Mapping[str, Parameter]] = {
    name: name for name in PARAMETERS if name not in {"oxygen", "consciousness"}
}


def _telling(vital: Vital) -> tuple[int, float, float]:
    return vital.points or 0, max(vital.share or 0.0, 0.0), abs(vital.z or 0.0)


def _stands_out(vital: Vital) -> bool:
    points, share, z = _telling(vital)
    return points > 0 or share >= NOTABLE_SHARE or z >= UNUSUAL_Z


def _vital_words(vital: Vital) -> Words:
    zh, en = _NAMES[vital.name]
    value = f"{_number(vital.name, vital.value)}{_SUFFIX.get(vital.name, '')}"
    chinese, english = [f"{zh} {value}"], [f"{en} {value}"]
    if vital.age_s is not None and vital.age_s > OLD_S:
        ago = _ago(vital.age_s)
        chinese[0] += f"（{ago.zh}）"
        english[0] += f" ({ago.en})"
    if vital.usual is not None:
        usual = _number(vital.name, vital.usual)
        chinese.append(f"平时 {usual}")
        english.append(f"usually {usual}")
    elif vital.limit is not None:
        limit = _number(vital.name, vital.limit)
        chinese.append(f"界限 {limit}")
        english.append(f"limit {limit}")
    least = _LEAST_CHANGE.get(vital.name)
    if vital.change is not None and least is not None and abs(vital.change) >= least:
        moved, hours = _number(vital.name, abs(vital.change)), f"{vital.change_hours:g}"
        up = vital.change > 0
        chinese.append(f"{hours} 小时{'上升' if up else '下降'} {moved}")
        english.append(f"{'up' if up else 'down'} {moved} in {hours} hours")
    return Words("，".join(chinese), ", ".join(english))


def _score_words(explanation: Explanation) -> Words:
    """Name it NEWS2 only where all seven are there."""
    if explanation.complete:
        return Words(f"NEWS2 {explanation.score} 分", f"NEWS2 {explanation.score}")
    if not explanation.parts:
        return Words("没有可用的读数", "no usable readings")
    lacks = [_NAMES[name] for name in explanation.missing]
    low, high = explanation.score, explanation.possible_max
    range_zh, range_en = (
        (f"{low}", f"{low}") if low == high else (f"{low}–{high}", f"{low} to {high}")
    )
    return Words(
        f"部分评分 {range_zh} 分（缺{'、'.join(zh for zh, _ in lacks)}）",
        f"partial score {range_en} (no {', '.join(en for _, en in lacks)})",
    )


def _ago(age_s: float) -> Words:
    minutes = floor(age_s / 60)
    if minutes < 2 * 60:
        return Words(f"{minutes} 分钟前", f"{minutes} minutes ago")
    return Words(f"{minutes // 60} 小时前", f"{minutes // 60} hours ago")


def _number(name: str, value: float) -> str:
    """Round half up, as NEWS2 does: a value must not read as one that gives other points."""
    decimals = _DECIMALS.get(name, 0)
    scale = 10**decimals
    return f"{floor(value * scale + 0.5 + 1e-4) / scale:.{decimals}f}"
