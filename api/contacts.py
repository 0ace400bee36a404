"""Contacts: how people and offices are reached, and a button that tries it."""

import asyncio
import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, StringConstraints

from anxin.db import contacts as stored
from anxin.db.contacts import Office, SeenContact
from anxin.db.scope import Scope
from anxin.db.sessions import Authority
from anxin.notify.channel import Channel, Contact, DeliveryError
from anxin.notify.channels import open_channels
from anxin.notify.delivery import SEND_SECONDS
from anxin.notify.notice import Notice, channel_test
from api.answers import After, Limit, Page, answer, page, serial_after
from api.auth import Current
from api.fields import Body, Id, Text, number
from api.permissions import Forbidden, allows
from api.problems import Unusable
from api.services import Db, Shared

router = APIRouter(prefix="/contacts", tags=["contacts"])

ChannelName = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]
Where = Annotated[Text, StringConstraints(min_length=1, max_length=1000)]
Secret = Annotated[Text, StringConstraints(max_length=1000)]


class NewContact(Body):
    """A way to a person (one's own without user_id) or to an office of a place."""

    channel: ChannelName
    address: Where
    secret: Secret = ""
    user_id: Id | None = None
    place_id: Id | None = None
    office: Office | None = None
    enabled: bool = True


class ContactChange(Body):
    """Another address or secret, or whether it is used. An empty secret removes it."""

    address: Where | None = None
    secret: Secret | None = None
    enabled: bool | None = None


class Tried(BaseModel):
    """What came of a test, in plain words."""

    ok: bool
    outcome: Literal["sent", "failed", "passing"]
    zh: str
    en: str


@router.get("", response_model=Page[SeenContact])
async def list_contacts(
    user: Current,
    database: Db,
    user_id: Annotated[Id | None, Query(description="Only those of this person.")] = None,
    place_id: Annotated[Id | None, Query(description="Only those of this place and below.")] = None,
    limit: Limit = 100,
    after: After = None,
) -> Response:
    """Return one's own contacts, and for who leads a place those of its offices and people."""
    found = await stored.contacts(
        database,
        _scope(user),
        user.user_id,
        user_id=number(user_id),
        place_id=number(place_id),
        after=serial_after(after) or 0,
        limit=limit + 1,
    )
    return page(found, [int(one.id) for one in found], limit)


@router.post("", response_model=SeenContact, status_code=HTTPStatus.CREATED)
async def create_contact(body: NewContact, user: Current, shared: Shared, database: Db) -> Response:
    """Add a way to oneself, to a person or to an office of one's place; try it afterwards."""
    if (body.place_id is None) != (body.office is None):
        raise Unusable("An office needs a place_id, and a place_id its office.")
    if body.place_id is not None and body.user_id is not None:
        raise Unusable("A contact is a person's or a place's: give user_id or place_id.")
    user_id = None if body.place_id is not None else number(body.user_id) or user.user_id
    if user_id != user.user_id:
        _lead(user)
    await _check(shared, body.channel, body.address)
    made = await stored.create_contact(
        database,
        _scope(user),
        user.user_id,
        user_id=user_id,
        place_id=number(body.place_id),
        office=body.office,
        channel=body.channel,
        address=body.address,
        secret=body.secret,
        enabled=body.enabled,
    )
    return answer(made, HTTPStatus.CREATED)


@router.patch("/{contact_id}", response_model=SeenContact)
async def change_contact(
    contact_id: Id, body: ContactChange, user: Current, shared: Shared, database: Db
) -> Response:
    """Change a contact; its count of failures begins anew with another address or secret."""
    there = await stored.contact(database, _scope(user), user.user_id, int(contact_id))
    if body.address is not None:
        await _check(shared, there.channel, body.address)
    changed = await stored.change_contact(
        database,
        _scope(user),
        user.user_id,
        int(contact_id),
        address=body.address,
        secret=body.secret,
        enabled=body.enabled,
    )
    return answer(changed)


@router.delete("/{contact_id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_contact(contact_id: Id, user: Current, database: Db) -> Response:
    """Remove a contact."""
    await stored.delete_contact(database, _scope(user), user.user_id, int(contact_id))
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/{contact_id}/test", response_model=Tried)
async def try_contact(contact_id: Id, user: Current, shared: Shared, database: Db) -> Response:
    """Send a test notice now and tell what came of it; the outcome counts for the contact."""
    there = await stored.contact(database, _scope(user), user.user_id, int(contact_id))
    secret = await stored.secret_of(database, int(contact_id))
    async with open_channels(shared.settings) as channels:
        channel = channels.get(there.channel)
        if channel is None:
            raise Unusable(f"There is no channel {there.channel!r}; GET /channels lists them.")
        notice = channel_test(
            datetime.now(UTC),
            zone=ZoneInfo(shared.settings.timezone),
            public_url=shared.settings.public_url,
        )
        error = await _fault_of(channel, notice, Contact(there.address, secret))
    if error is None:
        await stored.note_worked(shared.door, int(contact_id))
    else:
        await stored.note_broke(shared.door, int(contact_id), str(error))
    return answer(_told(error))


async def _fault_of(channel: Channel, notice: Notice, contact: Contact) -> DeliveryError | None:
    """Send once; return what went wrong, if anything."""
    if fault := channel.fault(contact):
        return DeliveryError(fault, permanent=True)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await channel.send(notice, contact, key=f"test:{secrets.token_hex(8)}")
    except TimeoutError:
        return DeliveryError("No answer in time.", permanent=False)
    except DeliveryError as error:
        return error
    return None


def _told(error: DeliveryError | None) -> dict[str, object]:
    if error is None:
        zh = "测试通知已发出，请在接收端确认收到。"
        en = "The test notice went out. Look whether it arrived."
        outcome = "sent"
    elif error.permanent:
        zh = f"无法发送，请检查地址、密钥和配置：{error}"
        en = f"It cannot be sent. Check address, secret and settings: {error}"
        outcome = "failed"
    else:
        zh = f"暂时发送失败，请稍后再试：{error}"
        en = f"It could not be sent just now. Try again in a minute: {error}"
        outcome = "passing"
    return {"ok": error is None, "outcome": outcome, "zh": zh, "en": en}


async def _check(shared: Shared, name: str, address: str) -> None:
    """Refuse an address that its channel could never use; missing settings are told by a test."""
    async with open_channels(shared.settings) as channels:
        channel = channels.get(name)
        if channel is None or name == "station":
            known = ", ".join(sorted(channels.keys() - {"station"}))
            raise Unusable(f"`channel` is one of {known}.")
        fault = channel.fault(Contact(address))
        if fault and not fault.startswith("Set ANXIN_"):
            raise Unusable(f"`address`: {fault}")


def _scope(user: Authority) -> Scope:
    """Return whose contacts a user manages beside its own."""
    return Scope(user.path if allows(user, "contacts.write") else None)


def _lead(user: Authority) -> None:
    if not allows(user, "contacts.write"):
        raise Forbidden(f"The role {user.role} may only set its own contacts.")
