"""The door to the web: one request to an address that may be asked, its answer as JSON or an error.

Addresses come from people. So a request goes only to https, only to public addresses, and to the
very address that was judged: a name that answers differently a moment later gains nothing.
"""

import asyncio
import email.utils
import ipaddress
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from anxin.notify.channel import DeliveryError

SECONDS: Final = 8.0
_LONGEST_REST_S: Final = 600.0


class Web:
    """A client for requests to providers: an async context manager."""

    def __init__(self, *, allow_private: bool = False) -> None:
        """`allow_private` admits plain http and addresses of this machine and its network."""
        self._allow_private = allow_private
        # No proxy from the environment: it would resolve the name anew, behind the judgement.
        self._client = httpx.AsyncClient(
            timeout=SECONDS, trust_env=False, follow_redirects=False, http2=False
        )

    async def __aenter__(self) -> Self:
        """Open."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Close every connection."""
        await self._client.__aexit__(kind, error, trace)

    def fault(self, url: str, hosts: frozenset[str] | None = None) -> str | None:
        """Say why a URL may not be asked, as far as it shows without a look-up; or None."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return "This is not a URL. 网址格式不对。"
        if not parts.hostname or parts.username or port == 0:
            return "This is not a URL. 网址格式不对。"
        if self._allow_private and parts.scheme in ("http", "https"):
            return None
        if parts.scheme != "https":
            return "The URL must begin with https://. 网址必须以 https:// 开头。"
        if hosts is not None and parts.hostname not in hosts:
            return f"The URL must be at {', '.join(sorted(hosts))}. 网址的主机名不对。"
        try:
            literal = ipaddress.ip_address(parts.hostname)
        except ValueError:
            return None
        return None if _is_public(literal) else _PRIVATE

    async def post(
        self,
        url: str,
        content: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        coded: bool = False,
    ) -> Any:  # noqa: ANN401  # any JSON
        """Post a body, JSON unless `headers` say otherwise; return the answer's JSON or None.

        `coded` says that refusals carry a code in their JSON, which is returned for the caller to
        read. Raise DeliveryError: passing for time-outs, 408, 429 and 5xx, else permanent.
        """
        if fault := self.fault(url):
            raise DeliveryError(fault, permanent=True)
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = await self._address(host, parts.port or (443 if parts.scheme == "https" else 80))
        netloc = f"[{address}]" if ":" in address else address
        if parts.port:
            netloc = f"{netloc}:{parts.port}"
        try:
            response = await self._client.post(
                parts._replace(netloc=netloc, fragment="").geturl(),
                content=content,
                headers={
                    "content-type": "application/json; charset=utf-8",
                    **(headers or {}),
                    "host": parts.netloc,
                },
                # Certificate and SNI are those of the name, though the address was fixed above.
                extensions={"sni_hostname": host},
            )
        except httpx.TimeoutException as error:
            raise DeliveryError("No answer in time.", permanent=False) from error
        except httpx.HTTPError as error:
            raise DeliveryError(
                f"The connection failed ({type(error).__name__}).", permanent=False
            ) from error
        return _judged(response, coded)

    async def _address(self, host: str, port: int) -> str:
        """Return the address to connect to; raise DeliveryError when one of them is private."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            raise DeliveryError(f"The name {host} is not found.", permanent=False) from error
        addresses = [str(entry[4][0]) for entry in found]
        if not self._allow_private and not all(
            _is_public(ipaddress.ip_address(one.partition("%")[0])) for one in addresses
        ):
            raise DeliveryError(_PRIVATE, permanent=True)
        return addresses[0]


_PRIVATE: Final = (
    "This address is not public. Set ANXIN_ALLOW_PRIVATE_WEBHOOKS if that is meant."
    " 该地址不是公网地址。"
)


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return bool((mapped or address).is_global and not address.is_multicast)


def _judged(response: httpx.Response, coded: bool) -> Any:  # noqa: ANN401  # any JSON
    status = response.status_code
    if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE):
        raise DeliveryError(
            f"The provider asks to wait (HTTP {status}).",
            permanent=False,
            retry_after_seconds=_rest(response.headers.get("retry-after", "")),
        )
    if response.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
        raise DeliveryError(f"The provider failed (HTTP {status}).", permanent=False)
    try:
        body = msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        body = None
    if not response.is_success and not (coded and isinstance(body, dict)):
        raise DeliveryError(
            f"The provider refused it (HTTP {status}).", permanent=True, status=status
        )
    return body


def _rest(text: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most ten minutes."""
    if text.strip().isdecimal():
        return min(float(text), _LONGEST_REST_S)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max((until - datetime.now(UTC)).total_seconds(), 0.0), _LONGEST_REST_S)
