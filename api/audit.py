"""The audit, read: everything for administrators, and who looked at one resident."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, StringConstraints

from anxin.db import audit as stored
from anxin.db.audit import AccessLine, LogLine
from anxin.db.residents import resident
from api.answers import After, Limit, Page, page, serial_after
from api.auth import Grant, may
from api.fields import Id, Moment, number
from api.problems import Unusable
from api.services import Db

router = APIRouter(tags=["audit"])

LONGEST: Final = timedelta(days=366)
USUAL: Final = timedelta(days=30)

_ROLES: Final = {
    "admin": ("管理员", "administrator"),
    "supervisor": ("主管", "supervisor"),
    "nurse": ("护理员", "carer"),
    "integrator": ("设备工程师", "device engineer"),
    "family": ("家属", "relative"),
}
_SEEN: Final = {
    "resident": ("查看了基本资料", "looked at the personal details"),
    "status": ("查看了当前状态", "looked at the present state"),
    "vitals": ("查看了体征曲线", "looked at the vital signs"),
    "events": ("查看了设备事件", "looked at what devices reported"),
    "risk": ("查看了风险评分", "looked at the risk score"),
    "observation": ("查看了人工观察记录", "looked at what staff observed"),
    "family": ("查看了家属授权", "looked at who of the family may see what"),
    "access": ("查看了访问记录", "looked at this list"),
    "identity": ("查看了证件和电话（部分隐藏）", "looked at ID card and telephone, partly hidden"),
    "relative": ("查看了亲属联系人（部分隐藏）", "looked at the relatives, partly hidden"),
    "consent": ("查看了知情同意记录", "looked at the consents"),
    "visit": ("查看了探访和服务记录", "looked at visits and services"),
    "alarm": ("查看了报警", "looked at an alarm"),
    "timeline": ("查看了报警的处理过程", "looked at how an alarm was handled"),
    "deliveries": ("查看了报警的通知记录", "looked at the notices of an alarm"),
    "device": ("查看了所用设备", "looked at the device in use"),
    "assignment": ("查看了设备分配", "looked at the device in use"),
    "stream": ("在实时页面上看到（每小时记一次）", "saw on a live page (told once an hour)"),
    "export": ("导出了资料", "took the data out"),
}
_DONE: Final = {
    ("create", "resident"): ("登记了老人", "put the resident on record"),
    ("change", "resident"): ("修改了资料", "changed the details"),
    ("delete", "resident"): ("删除了资料", "removed the record"),
    ("create", "family"): ("授权一位家属查看", "let a relative see"),
    ("change", "family"): ("更改了家属的查看范围", "changed what a relative may see"),
    ("delete", "family"): ("取消了家属的查看权限", "withdrew a relative's permission"),
    ("create", "assignment"): ("分配了设备", "assigned a device"),
    ("change", "assignment"): ("更改了设备分配", "changed which device is used"),
    ("delete", "assignment"): ("取消了设备分配", "took a device away"),
    ("reveal", "identity"): ("查看了完整的证件和电话", "saw ID card and telephone in full"),
    ("search", "identity"): ("按证件或电话查到此人", "found them by ID card or telephone"),
    ("create", "identity"): ("登记了证件或电话", "stored ID card or telephone"),
    ("change", "identity"): ("修改了证件或电话", "changed ID card or telephone"),
    ("create", "visit"): ("登记了探访或服务", "wrote down a visit or service"),
    ("delete", "visit"): ("删除了探访或服务记录", "took a visit or service away"),
    ("create", "relative"): ("登记了亲属联系人", "added a relative to be called"),
    ("delete", "relative"): ("删除了亲属联系人", "removed a relative to be called"),
    ("create", "consent"): ("登记了知情同意", "recorded a consent"),
    ("create", "observation"): ("记录了人工观察", "wrote down what was observed"),
    ("change", "consent"): ("撤回了知情同意", "withdrew a consent"),
    ("create", "erasure"): ("申请删除全部资料", "asked for everything to be erased"),
    ("change", "erasure"): ("推进了资料删除", "went on with the erasure"),
    ("acknowledged", "alarm"): ("接警", "took an alarm"),
    ("on_site", "alarm"): ("到场", "was there"),
    ("closed", "alarm"): ("处置完成", "ended an alarm"),
    ("snoozed", "alarm"): ("暂缓报警", "let an alarm rest"),
    ("note", "alarm"): ("为报警写了备注", "wrote a note on an alarm"),
}


class Access(BaseModel):
    """Somebody saw or did something; `zh` and `en` say it in words. A relative's name stays out."""

    at: datetime
    name: str | None
    role: str | None
    place: str | None
    you: bool
    action: str
    object: str
    fields: list[str]
    zh: str
    en: str


Word = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]


@router.get("/audit", response_model=Page[LogLine])
async def list_entries(
    grant: Annotated[Grant, may("audit.read")],
    database: Db,
    user_id: Id | None = None,
    resident_id: Id | None = None,
    action: Word | None = None,
    object_: Annotated[Word | None, Query(alias="object")] = None,
    from_: Annotated[Moment | None, Query(alias="from")] = None,
    to: Moment | None = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return who did and saw what, newest first; who administers a place, of its own people."""
    found = await stored.entries(
        database,
        grant.scope,
        user_id=number(user_id),
        resident_id=number(resident_id),
        action=action,
        object_=object_,
        begins=from_,
        ends=to,
        before=serial_after(after),
        limit=limit + 1,
    )
    return page(found, [int(one.id) for one in found], limit)


@router.get("/residents/{resident_id}/access", response_model=Page[Access])
async def list_access(
    resident_id: Id,
    grant: Annotated[Grant, may("access.read")],
    database: Db,
    from_: Annotated[
        Moment | None, Query(alias="from", description="Default: 30 days before `to`.")
    ] = None,
    to: Annotated[Moment | None, Query(description="Default: now.")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return who looked at a resident or changed something about them, newest first."""
    ends = to or datetime.now(UTC) + timedelta(minutes=1)
    begins = from_ or ends - USUAL
    if not begins < ends <= begins + LONGEST:
        raise Unusable(f"`from` must lie before `to`, at most {LONGEST.days} days.")
    await resident(database, grant.scope, int(resident_id))
    found = await stored.access_to(
        database,
        int(resident_id),
        begins=begins,
        ends=ends,
        before=serial_after(after),
        limit=limit + 1,
    )
    return page([told(one) for one in found], [one.id for one in found], limit)


def told(line: AccessLine) -> dict[str, Any]:
    """Return an entry as a relative reads it: who, of where, did or saw what, in words."""
    role_zh, role_en = _ROLES.get(line.role or "", ("系统管理", "somebody at the database"))
    if line.self:
        who_zh, who_en = "您本人", "you"
    else:
        of = f"（{line.place}）" if line.place else ""
        who_zh = f"{role_zh} {line.name or ''}".strip() + of
        who_en = f"{role_en} {line.name or ''}".strip() + (f" of {line.place}" if of else "")
    what_zh, what_en = _words(line)
    return {
        "at": line.at,
        "name": line.name,
        "role": line.role,
        "place": line.place,
        "you": line.self,
        "action": line.action,
        "object": line.object,
        "fields": line.fields,
        "zh": f"{who_zh}{what_zh}",
        "en": f"{who_en} {what_en}",
    }


def _words(line: AccessLine) -> tuple[str, str]:
    if line.action in ("read", "show"):
        return _SEEN.get(line.object, (f"查看了 {line.object}", f"looked at {line.object}"))
    known = _DONE.get((line.action, line.object))
    zh, en = known or (f"：{line.object} {line.action}", f"did: {line.object} {line.action}")
    if line.fields:
        return f"{zh}：{'、'.join(line.fields)}", f"{en}: {', '.join(line.fields)}"
    return zh, en
