"""Logins through providers of identities: what every provider has in common.

A login goes away to a provider with an Attempt and comes back with an answer; the provider's code
turns that answer into a Subject, or refuses. Nothing of a provider is believed before.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

import httpx
import msgspec

from anxin.errors import AnxinError, SettingError

SECONDS: Final = 8.0
MOST_BYTES: Final = 256 * 1024
"""More than any provider has to say."""


class ProviderAway(AnxinError):
    """The sign-in service does not answer as it should. Log in with your password, or try later."""


class SignInRefused(AnxinError):
    """This sign-in does not hold. Begin again on the login page."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login that goes to a provider; `fresh` asks that the person shows itself anew."""

    state: str
    nonce: str
    verifier: str
    """Of PKCE (RFC 7636): whoever redeems the code proves to have asked for it."""
    redirect_uri: str
    began_at: datetime
    fresh: bool = False
    browser: str = ""
    """What the browser says of itself."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who somebody is at an issuer, and when that was last shown there, if the issuer tells."""

    issuer: str
    subject: str
    shown_at: datetime | None = None


class Provider(Protocol):
    """A provider of identities."""

    @property
    def issuer(self) -> str:
        """Whose subjects these are; never the same for two providers."""

    @property
    def method(self) -> Literal["oidc", "wecom"]:
        """What its sessions say of how they began."""

    @property
    def confirms(self) -> bool:
        """Whether it can be asked to let a person show itself anew."""

    def subject(self, text: str) -> str:
        """Return a subject that somebody wrote in the form in which it comes from there."""

    async def address(self, attempt: Attempt, now: datetime) -> str:
        """Return where to send the browser; raise ProviderAway."""

    async def identify(self, attempt: Attempt, answer: Mapping[str, str], now: datetime) -> Subject:
        """Return who came back with these parameters; raise SignInRefused, ProviderAway."""

    async def fault(self, now: datetime) -> str:
        """Return what is wrong with it, as far as shows without a person; raise ProviderAway."""


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: str | None = None,
) -> tuple[int, dict[str, Any]]:
    """Return the status and JSON object that a provider answers; raise ProviderAway."""
    said = {"accept": "application/json", "accept-encoding": "identity", **(headers or {})}
    body = bytearray()
    try:
        async with (
            asyncio.timeout(SECONDS),
            client.stream(method, url, headers=said, content=content) as response,
        ):
            async for part in response.aiter_raw():
                body += part
                if len(body) > MOST_BYTES:
                    raise ProviderAway
        decoded = msgspec.json.decode(body)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, msgspec.DecodeError) as error:
        raise ProviderAway from error
    if response.is_server_error or response.is_redirect or not isinstance(decoded, dict):
        raise ProviderAway
    return response.status_code, decoded


def check_url(url: str, what: str) -> None:
    """Raise SettingError unless this is an https address, or one of this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        odd = parts.username is not None or bool(parts.query or parts.fragment) or parts.port == 0
        odd = odd or not (url.isascii() and url.isprintable()) or " " in url
    except ValueError as error:
        raise SettingError(f"{what} is no address: {url!r}.") from error
    if odd or not host:
        raise SettingError(f"{what} is no address: {url!r}.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(host)):
        raise SettingError(f"{what} must begin with https://, not {url!r}.")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
