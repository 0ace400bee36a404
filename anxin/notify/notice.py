"""What is said to a person who is not at the screen: the minimum, Chinese first. Pure.

Kind, place, who (initials unless set otherwise), when, and a link. Never a vital sign: whoever may
see more follows the link and logs in.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Final, Literal, Protocol

import msgspec

Priority = Literal["high", "medium", "low"]
MOST_LINES: Final = 40
"""How many alarms a summary spells out; beyond that it counts and links."""

PRIORITIES: Final[Mapping[int, Priority]] = {1: "low", 2: "medium", 3: "high"}
_MARKS: Final[Mapping[Priority, str]] = {"high": "!!!", "medium": "!!", "low": "!"}
_PRIORITY_WORDS: Final[Mapping[Priority, tuple[str, str]]] = {
    "high": ("紧急", "high"),
    "medium": ("重要", "medium"),
    "low": ("一般", "low"),
}
KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "sos": ("紧急呼叫", "Emergency call"),
    "fall": ("跌倒", "Fall"),
    "apnea": ("呼吸暂停", "Apnoea"),
    "bed_exit": ("离床", "Left bed"),
    "bed_exit_long": ("离床过久", "Out of bed too long"),
    "smoke": ("烟雾报警", "Smoke"),
    "gas": ("燃气泄漏", "Gas leak"),
    "co": ("一氧化碳超标", "Carbon monoxide"),
    "water_leak": ("漏水", "Water leak"),
    "door_open": ("门被打开", "Door opened"),
    "geofence_exit": ("离开安全区域", "Left the safe area"),
    "tamper": ("设备被拆动", "Device tampered with"),
    "heart_rate_high": ("心率过快", "Heart rate high"),
    "heart_rate_low": ("心率过慢", "Heart rate low"),
    "respiration_high": ("呼吸过快", "Breathing fast"),
    "respiration_low": ("呼吸过慢", "Breathing slow"),
    "spo2_low": ("血氧过低", "Oxygen saturation low"),
    "temperature_high": ("体温过高", "Temperature high"),
    "temperature_low": ("体温过低", "Temperature low"),
    "blood_pressure_high": ("血压过高", "Blood pressure high"),
    "blood_pressure_low": ("血压过低", "Blood pressure low"),
    "no_activity": ("长时间无活动", "No activity"),
    "device_silent": ("设备失联", "Device silent"),
    "device_fault": ("设备故障", "Device fault"),
    "battery_low": ("电量低", "Low battery"),
    "low_battery": ("电量低", "Low battery"),
    "early_warning": ("早期预警评分升高", "Early warning score up"),
    "risk_rising": ("风险上升", "Risk rising"),
    "unusual": ("与平时不同", "Unlike usual"),
}

FAULTS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "station_gone": (
        "护理站不在线", "no station is online",
        "请打开护理站页面并开始值班", "open the station page and begin duty",
    ),
    "station_asleep": (
        "护理站页面不在屏幕上", "the station page is hidden or asleep",
        "请把护理站页面放到前面", "bring the station page to the front",
    ),
    "station_muted": (
        "护理站没有声音", "the station has no sound",
        "请打开声音并测试", "switch the sound on and test it",
    ),
    "selftest_failed": (
        "报警通道自检失败", "the alarm path failed its self-test",
        "请巡视老人并联系管理员", "look in on residents and call the administrator",
    ),
    "nobody_reachable": (
        "报警通知不到任何人", "an alarm reached nobody",
        "请检查排班和联系方式", "check the roster and the contacts",
    ),
    "channel_failing": (
        "通知通道发送失败", "a notification channel fails",
        "请检查联系方式和通道设置", "check its contacts and settings",
    ),
    "audit_broken": (
        "审计记录被改动或缺失", "the audit was changed or cut",
        "请联系系统管理员核查", "call the administrator to look into it",
    ),
    "deaf": (
        "平台收不到设备数据", "the platform does not hear its devices",
        "请巡视老人并联系管理员", "look in on residents and call the administrator",
    ),
}  # fmt: skip
"""By the reason of a `device_fault`: what is wrong, and what to do next, each in both languages."""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What one message says. `alarm_ids` has several in a summary and none in a test."""

    alarm_ids: tuple[str, ...]
    priority: Priority
    kind: str
    what_zh: str
    what_en: str
    place: str
    who: str
    at: str
    """Local time as text, for example 11-23 21:40:05."""
    link: str
    lines: tuple[str, ...] = ()
    """In a summary one line for each alarm."""
    todo_zh: str = ""
    todo_en: str = ""
    """What to do next, where that is not plain from what it is."""

    def title(self) -> str:
        """Return one line: the mark, what, where, who."""
        where = " ".join(part for part in (self.place, self.who) if part)
        return f"{_MARKS[self.priority]} 【安心】{self.what_zh} {where}".rstrip()

    def text(self) -> str:
        """Return the whole message, Chinese first."""
        zh, en = _PRIORITY_WORDS[self.priority]
        rows = [self.title()]
        if not self.lines:
            rows.append(f"时间 {self.at} · 优先级 {zh}")
        rows += self.lines
        if self.todo_zh:
            rows.append(self.todo_zh)
        rows.append(f"{self.what_en} · {en} priority · {self.at}")
        if self.todo_en:
            rows.append(self.todo_en)
        if self.link:
            rows.append(self.link)
        return "\n".join(rows)

    def spoken(self) -> str:
        """Return what a voice reads out."""
        return f"安心平台报警：{self.place}，{self.who}，{self.what_zh}。请立即处理。".replace(
            "，，", "，"
        )


class Subject(Protocol):
    """What a notice is made of."""

    @property
    def alarm_id(self) -> int:
        """The alarm."""

    @property
    def kind(self) -> str:
        """Its kind."""

    @property
    def reason(self) -> str | None:
        """Which fault, if it tells of one."""

    @property
    def priority(self) -> int:
        """3 high, 2 medium, 1 low."""

    @property
    def raised_at(self) -> datetime:
        """When, aware."""

    @property
    def places(self) -> Sequence[str]:
        """Names from the facility or home down to the bed."""

    @property
    def name(self) -> str | None:
        """The resident's, if it is about one."""


def build_notice(subject: Subject, *, zone: tzinfo, full_names: bool, public_url: str) -> Notice:
    """Return the notice of one alarm."""
    zh, en = KINDS.get(subject.kind, (subject.kind, subject.kind))
    todo_zh = todo_en = ""
    fault = FAULTS.get(subject.reason or "")
    if fault is not None:
        fault_zh, fault_en, todo_zh, todo_en = fault
        zh, en = f"{zh}：{fault_zh}", f"{en}: {fault_en}"
    name = subject.name or ""
    return Notice(
        alarm_ids=(str(subject.alarm_id),),
        priority=PRIORITIES[subject.priority],
        kind=subject.kind,
        what_zh=zh,
        what_en=en,
        place=" · ".join(subject.places),
        who=name if full_names else initials(name),
        at=_local(subject.raised_at, zone),
        link=f"{public_url.rstrip('/')}/?alarm={subject.alarm_id}" if public_url else "",
        todo_zh=todo_zh,
        todo_en=todo_en,
    )


def summarise(notices: Sequence[Notice], *, public_url: str) -> Notice:
    """Return one notice that names every alarm of several; the order is kept."""
    ranks = list(_MARKS)
    loudest = min(notices, key=lambda one: ranks.index(one.priority))
    lines = [
        f"{_MARKS[one.priority]} {one.at} {one.what_zh} {one.place} {one.who}".rstrip()
        for one in notices
    ]
    if len(lines) > MOST_LINES:
        ids = "、".join(one.alarm_ids[0] for one in notices[MOST_LINES:])
        lines = [*lines[:MOST_LINES], f"另有 {len(notices) - MOST_LINES} 条（编号 {ids}）"]
    return Notice(
        alarm_ids=tuple(id_ for one in notices for id_ in one.alarm_ids),
        priority=loudest.priority,
        kind="summary",
        what_zh=f"{len(notices)} 条报警",
        what_en=f"{len(notices)} alarms",
        place="",
        who="",
        at=notices[-1].at,
        link=public_url,
        lines=tuple(lines),
    )


def channel_test(now: datetime, *, zone: tzinfo, public_url: str) -> Notice:
    """Return what the test button sends."""
    return Notice(
        alarm_ids=(),
        priority="low",
        kind="test",
        what_zh="通道测试，无需处理",
        what_en="Channel test, nothing to do",
        place="",
        who="",
        at=_local(now, zone),
        link=public_url,
    )


def initials(name: str) -> str:
    """Return a name so shortened that only who knows the ward knows the person.

    A Chinese name keeps its family name and says how many characters follow (王**), any other its
    first letters (J. S.).
    """
    words = name.split()
    if len(words) == 1 and not name.isascii():
        return words[0][0] + "*" * (len(words[0]) - 1)
    return " ".join(f"{word[0]}." for word in words)


def _local(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%m-%d %H:%M:%S")
