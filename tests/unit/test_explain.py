"""The record behind a score, and the sentence that staff read."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.explain import MOST_VITALS, Explanation, Words, explain, read, record, sentence
from models.news2 import news2

VALUES = {"hr": 88.0, "rr": 16.0, "spo2": 97.0, "temp": 36.8, "sbp": 128.0, "dbp": 74.0}
NAN = float("nan")


def explained(
    values: dict[str, float] | None = None,
    oxygen: float = 0,
    consciousness: int = 0,
    scale2: bool = False,
    **more: Any,
) -> Explanation:
    """Explain one resident of whom all else is usual."""
    told = VALUES | (values or {})
    scores = news2(
        **{name: [value] for name, value in told.items() if name != "dbp"},
        oxygen=oxygen, consciousness=consciousness, scale2=scale2,
    )  # fmt: skip
    more = {"ages_s": dict.fromkeys(told, 30.0), "model": "1", **more}
    return explain(scores, 0, values=told, scale2=scale2, **more)


def test_the_sentence_names_what_stands_out_its_usual_and_its_rise() -> None:
    one = explained({"rr": 26.0, "hr": 112.0}, usual={"rr": 16.0, "hr": 78.0},
                    z={"rr": 5.0, "hr": 4.0}, change={"rr": 6.0, "hr": 20.0})  # fmt: skip
    assert sentence(one) == Words(
        "呼吸 26，平时 16，6 小时上升 6；心率 112，平时 78，6 小时上升 20；NEWS2 5 分",
        "breathing 26, usually 16, up 6 in 6 hours; heart rate 112, usually 78, up 20 in 6 hours;"
        " NEWS2 5",
    )


def test_with_a_gap_it_is_never_called_news2() -> None:
    one = explained({"rr": 26.0, "temp": NAN}, usual={"rr": 16.0}, change={"rr": 6.0})
    assert sentence(one).zh == "呼吸 26，平时 16，6 小时上升 6；部分评分 3–6 分（缺体温）"
    assert sentence(one).en == (
        "breathing 26, usually 16, up 6 in 6 hours; partial score 3 to 6 (no temperature)"
    )


@pytest.mark.parametrize(
    ("more", "zh", "en"),
    [
        ({}, "无突出体征；NEWS2 0 分", "nothing stands out; NEWS2 0"),
        (
            {"values": {"rr": 26.0}},
            "呼吸 26，界限 20；NEWS2 3 分",
            "breathing 26, limit 20; NEWS2 3",
        ),
        (
            {"values": {"spo2": 90.4}},
            "血氧 90%，界限 96；NEWS2 3 分",
            "oxygen saturation 90%, limit 96; NEWS2 3",
        ),
        (
            {"values": {"spo2": 86.0}, "scale2": True},
            "血氧 86%，界限 88；NEWS2 1 分",
            "oxygen saturation 86%, limit 88; NEWS2 1",
        ),
        (
            {"values": {"temp": 38.46}, "ages_s": {"temp": 3 * 3600.0}},
            "体温 38.5°C（3 小时前），界限 38.0；NEWS2 1 分",
            "temperature 38.5°C (3 hours ago), limit 38.0; NEWS2 1",
        ),
        (
            {"values": {"sbp": 88.0}, "ages_s": {"sbp": 1200.0}, "change": {"sbp": -30.0}},
            "收缩压 88（20 分钟前），界限 111，6 小时下降 30；NEWS2 3 分",
            "systolic pressure 88 (20 minutes ago), limit 111, down 30 in 6 hours; NEWS2 3",
        ),
        (
            {"consciousness": 1, "oxygen": 1},
            "意识改变；正在吸氧；NEWS2 5 分",
            "not alert; on oxygen; NEWS2 5",
        ),
        (
            {"values": {"hr": 90.0}, "usual": {"hr": 58.0}, "z": {"hr": 4.2}},
            "心率 90，平时 58；NEWS2 0 分",
            "heart rate 90, usually 58; NEWS2 0",
        ),
        (
            {"shares": {"sbp": 0.9}, "usual": {"sbp": 150.0}, "risk": 0.124,
             "layer": "deterioration"},
            "收缩压 128，平时 150；模型估计恶化风险 12%；NEWS2 0 分",
            "systolic pressure 128, usually 150; model: 12% risk of decline; NEWS2 0",
        ),
        ({"layer": "novelty"}, "组合少见；NEWS2 0 分", "an unusual combination; NEWS2 0"),
        (
            {"notes": (Words("昨夜走动 8 次，平时 1 次", "moved about 8 times last night"),)},
            "昨夜走动 8 次，平时 1 次；NEWS2 0 分",
            "moved about 8 times last night; NEWS2 0",
        ),
        (
            {"values": dict.fromkeys(VALUES, NAN), "oxygen": NAN, "consciousness": -1},
            "没有可用的读数",
            "no usable readings",
        ),
        (
            {"values": {"rr": 24.5, "temp": NAN, "sbp": NAN}},
            "呼吸 25，界限 20；部分评分 3–9 分（缺收缩压、体温）",
            "breathing 25, limit 20; partial score 3 to 9 (no systolic pressure, temperature)",
        ),
    ],
)  # fmt: skip
def test_it_says_what_there_is_in_plain_words(more: dict[str, Any], zh: str, en: str) -> None:
    assert sentence(explained(**more)) == Words(zh, en)


def test_only_the_most_telling_are_named_and_all_are_recorded() -> None:
    one = explained({"rr": 30.0, "hr": 140.0, "spo2": 90.0, "temp": 39.5, "sbp": 105.0})
    assert [vital.name for vital in one.vitals] == ["hr", "rr", "spo2", "temp", "sbp", "dbp"]
    assert sentence(one).zh.count("；") == MOST_VITALS
    by_share = explained(shares={"sbp": 0.5, "hr": 1.0})
    assert [vital.name for vital in by_share.vitals][:2] == ["hr", "sbp"]


def test_a_small_change_is_not_worth_a_word() -> None:
    assert "小时" not in sentence(explained({"rr": 26.0}, change={"rr": 2.0})).zh


def test_all_that_is_known_is_in_the_record() -> None:
    one = explained(
        {"rr": 26.0, "temp": NAN}, oxygen=NAN, usual={"rr": 16.2}, z={"rr": 4.9},
        change={"rr": 6.0}, shares={"rr": 0.4}, risk=0.2, layer="news2", priority=2,
        model="deterioration-3",
    )  # fmt: skip
    (vital,) = [vital for vital in one.vitals if vital.name == "rr"]
    assert (vital.value, vital.limit, vital.usual, vital.z) == (26, 20, 16.2, 4.9)
    assert (vital.change, vital.change_hours, vital.points, vital.share) == (6, 6, 3, 0.4)
    assert one.missing == ("oxygen", "temp")
    assert one.parts == {"rr": 3, "spo2": 0, "sbp": 0, "hr": 0, "consciousness": 0}
    assert (one.score, one.possible_max, one.complete) == (3, 8, False)
    assert (one.risk, one.layer, one.priority, one.model) == (0.2, "news2", 2, "deterioration-3")


NUMBERS = st.one_of(st.just(NAN), st.floats(allow_nan=True, allow_infinity=True))


@example(values=dict.fromkeys(VALUES, 1e308), known=dict.fromkeys(VALUES, 1e308), oxygen=0, risk=0)
@given(
    values=st.fixed_dictionaries(dict.fromkeys(VALUES, NUMBERS)),
    known=st.dictionaries(st.sampled_from(list(VALUES)), NUMBERS),
    oxygen=st.sampled_from([0.0, 1.0, NAN]),
    risk=st.one_of(st.none(), NUMBERS),
)
def test_a_record_is_plain_json_and_comes_back_the_same(
    values: dict[str, float], known: dict[str, float], oxygen: float, risk: float | None
) -> None:
    one = explained(values, oxygen, ages_s=known, usual=known, z=known, change=known, risk=risk,
                    shares=known, notes=(Words("走动", "moved"),))  # fmt: skip
    sent = msgspec.json.encode(record(one))
    assert b"null" not in sent
    stored = msgspec.json.decode(sent)
    assert read(stored) == one
    assert stored["sentence"] == {"zh": sentence(one).zh, "en": sentence(one).en}
    for words in stored["sentence"].values():
        assert "nan" not in words
        assert "inf" not in words
        assert ("NEWS2" in words) == one.complete


def test_a_record_of_a_later_version_is_still_read() -> None:
    one = explained({"rr": 26.0})
    assert read(record(one) | {"added": 1}) == one


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        explained().score = 1  # type: ignore[misc]


def test_values_of_an_array_become_plain_numbers() -> None:
    one = explained({"rr": np.float32(26.1)}, z={"rr": np.float64(3.0)})  # type: ignore[dict-item]
    assert type(one.vitals[0].value) is float
    assert type(one.vitals[0].z) is float
