"""How long what is kept: one table, from which the worker deletes and the docs are drawn. Pure."""

from typing import Final, NamedTuple

from anxin.config import Settings
from anxin.errors import SettingError


class Kept(NamedTuple):
    """What goes when. `setting` names the field of Settings, or `days` is fixed.

    `forgets` is the statement of `anxin/db/upkeep.sql` that deletes it in slices, where there is
    one of its own; `since` says from when the days count.
    """

    tables: tuple[str, ...]
    zh: str
    en: str
    since: str
    setting: str = ""
    days: int = 0
    forgets: str = ""


KEPT: Final = (
    Kept(("telemetry",), "体征读数", "readings", "arrival", "retention_days"),
    Kept(("minute_rollup", "rollup_due"), "分钟汇总", "means by the minute", "their minute",
         "retention_days"),
    Kept(("hour_rollup",), "小时汇总", "means by the hour", "their hour", "rollup_days"),
    Kept(("events",), "设备事件", "events of devices", "arrival", "events_days",
         forgets="forget_events"),
    Kept(("commands",), "设备指令", "commands to devices", "their order", "events_days",
         forgets="forget_commands"),
    Kept(("alarms", "timeline", "outbox", "receipts", "receipt_news", "escalations"),
         "报警及处置记录",
         "alarms and what was done about them", "their close", "alarms_days",
         forgets="forget_alarms"),
    Kept(("alarms",), "自检报警", "alarms of the self-test", "their raising", days=30,
         forgets="forget_self_test_alarms"),
    Kept(("deliveries",), "通知记录", "single notices", "their making, once the alarm is closed",
         "deliveries_days", forgets="forget_deliveries"),
    Kept(("quarantine",), "无法使用的报文", "payloads that could not be used", "arrival",
         "quarantine_days"),
    Kept(("risk_history",), "风险评分历史", "former scores of residents", "their time",
         "risk_days", forgets="forget_risk_history"),
    Kept(("audit",), "审计记录", "who did and saw what", "the deed", "audit_days"),
    Kept(("imports",), "待导入的名单", "lists that wait to be imported", "they were sent", days=1),
    Kept(("self_tests",), "自检记录", "runs of the self-test", "their start", days=30),
    Kept(("listening",), "平台在线记录", "when the platform was there to listen", "their end",
         days=30),
    Kept(("login_attempts", "sessions", "device_changes"), "登录失败、过期会话、设备变更标记",
         "failed logins, ended sessions, marks of changed devices", "they happened", days=1),
    Kept(("tickets",), "流票据", "tickets of the stream", "they run out", days=0),
    Kept(("outside_logins",), "未完成的单点登录", "single sign-ons under way", "they run out",
         days=0),
)  # fmt: skip
"""What is not named here is kept as long as the resident, user, place or device it belongs to."""


def days_of(kept: Kept, settings: Settings) -> int:
    """Return for how many days it is kept; raise SettingError for a period that cannot be meant."""
    if not kept.setting:
        return kept.days
    days: int = getattr(settings, kept.setting)
    if days < 1:
        raise SettingError(
            f"ANXIN_{kept.setting.upper()} is {days}: less than a day is not kept at all. "
            "Set it to 1 or more."
        )
    return days
