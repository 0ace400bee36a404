"""What a notice says, and what it never says."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args
from zoneinfo import ZoneInfo

import pytest

from anxin.notify.notice import FAULTS, KINDS, MOST_LINES, build_notice, initials, summarise
from anxin.rules import EVENT_ALARMS, RULES
from anxin.stations import Fault
from models import watch

ZONE = ZoneInfo("Asia/Shanghai")


@dataclass(frozen=True)
class Alarm:
    alarm_id: int = 7
    kind: str = "sos"
    priority: int = 3
    raised_at: datetime = datetime(2026, 11, 23, 13, 40, 5, tzinfo=UTC)
    places: list[str] = field(default_factory=lambda: ["安心养老院", "201", "2 床"])
    name: str | None = "王秀英"
    reason: str | None = None


def test_a_notice_says_what_where_who_and_when_chinese_first() -> None:
    notice = build_notice(
        Alarm(), zone=ZONE, full_names=False, public_url="https://care.example.cn/"
    )
    assert notice.text() == (
        "!!! 【安心】紧急呼叫 安心养老院 · 201 · 2 床 王**\n"
        "时间 11-23 21:40:05 · 优先级 紧急\n"
        "Emergency call · high priority · 11-23 21:40:05\n"
        "https://care.example.cn/?alarm=7"
    )
    assert "王秀英" not in notice.spoken()


def test_a_fault_names_its_reason_and_what_to_do_next() -> None:
    fault = Alarm(kind="device_fault", reason="nobody_reachable", name=None)
    notice = build_notice(fault, zone=ZONE, full_names=False, public_url="")
    assert notice.text() == (
        "!!! 【安心】设备故障：报警通知不到任何人 安心养老院 · 201 · 2 床\n"
        "时间 11-23 21:40:05 · 优先级 紧急\n"
        "请检查排班和联系方式\n"
        "Device fault: an alarm reached nobody · high priority · 11-23 21:40:05\n"
        "check the roster and the contacts"
    )


def test_every_fault_of_a_station_has_its_words() -> None:
    assert set(get_args(Fault)) <= FAULTS.keys()


def test_the_whole_name_stands_there_only_when_it_is_set() -> None:
    notice = build_notice(Alarm(), zone=ZONE, full_names=True, public_url="")
    assert notice.who == "王秀英"
    assert notice.link == ""


@pytest.mark.parametrize(
    ("name", "short"), [("王秀英", "王**"), ("李四", "李*"), ("John Smith", "J. S."), ("", "")]
)
def test_names_are_shortened(name: str, short: str) -> None:
    assert initials(name) == short


def test_a_summary_names_every_alarm_and_is_as_loud_as_the_loudest() -> None:
    alarms = [Alarm(n, "battery_low", 1 + n % 2, name=None) for n in range(1, MOST_LINES + 4)]
    notices = [build_notice(one, zone=ZONE, full_names=False, public_url="") for one in alarms]
    summary = summarise(notices, public_url="https://care.example.cn")
    assert summary.alarm_ids == tuple(str(n) for n in range(1, MOST_LINES + 4))
    assert summary.priority == "medium"
    assert len(summary.lines) == MOST_LINES + 1
    assert all(str(n) in summary.lines[-1] for n in range(MOST_LINES + 1, MOST_LINES + 4))


def test_every_kind_of_alarm_has_its_words() -> None:
    raised = {rule.kind for rule in RULES} | {one.kind for one in EVENT_ALARMS.values()}
    assert raised | set(watch.KINDS) <= KINDS.keys()
