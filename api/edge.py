"""What surrounds every request: limits to bodies, headers for browsers, other origins, metrics."""

import asyncio
from collections.abc import Collection, Sequence
from http import HTTPStatus
from time import perf_counter
from typing import Final
from urllib.parse import urlsplit

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anxin.errors import SettingError
from anxin.signin import check_url
from api.metrics import Metrics
from api.problems import problem

BASE: Final = "/api/v1/"
MOST_BODY: Final = 1024 * 1024
SMALL_BODY: Final = 8 * 1024
SMALL: Final = (f"{BASE}auth/", f"{BASE}enrol", f"{BASE}me/", f"{BASE}stream/")
"""Below these paths a body is small: much of it is asked before anybody is known."""
LARGE_BODY: Final = 12 * 1024 * 1024
LARGE: Final = f"{BASE}imports"
"""A list of many people, as base64; the route reads it once it knows who sends it."""
BODY_S: Final = 20.0
"""So long a whole body may take."""
_CONTENT: Final = (
    b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    b"object-src 'none'"
)
SECURITY: Final = (
    (b"content-security-policy", _CONTENT),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_HTTPS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
_METHODS: Final = b"GET, POST, PUT, PATCH, DELETE"
_Header = tuple[bytes, bytes]


class Edge:
    """The outermost layer of the application.

    `https` says that people reach it by https and never otherwise; `origins` are those whose pages
    may use the API, with a bearer token and never with the cookie.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, *, https: bool = False, origins: Collection[str] = ()
    ) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics
        self._security = [*SECURITY, _HTTPS_ONLY] if https else [*SECURITY]
        self._origins = frozenset(one.encode() for one in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *self._security,
                    *_caching(scope, message),
                    *self._sharing(scope),
                ]
            await send(message)

        try:
            if self._is_preflight(scope):
                await noted({"type": "http.response.start", "status": 204, "headers": _PREFLIGHT})
                await noted({"type": "http.response.body"})
            elif _declared_length(scope) > (most := _most(scope["path"])):
                refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large(most))
                await refusal(scope, receive, noted)
            else:
                await self._app(scope, _Body(scope, receive).receive, noted)
        except Exception:
            # What nobody foresaw. Starlette answers it too, but outside of this layer.
            if not status:
                detail = "This did not work. It was noted in the log."
                await problem(500, detail)(scope, receive, noted)
            raise
        finally:
            # The template of the path, or one word for all that is not ours: labels stay few.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(scope["method"], route, status or 500).inc()
            self._metrics.latency_s.labels(route).observe(perf_counter() - began)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket; one that is refused before it begins is answered like a request."""
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "websocket.http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._security]
            elif message["type"] == "websocket.close" and not begun:
                refusal = {"status": HTTPStatus.FORBIDDEN, "headers": [*self._security]}
                await send({"type": "websocket.http.response.start", **refusal})
                message = {"type": "websocket.http.response.body", "body": b""}
            begun = True
            await send(message)

        await self._app(scope, receive, noted)

    def _sharing(self, scope: Scope) -> Sequence[_Header]:
        """Return what lets a page of another origin read an answer of the API."""
        if not self._origins or not scope["path"].startswith(BASE):
            return ()
        vary = (b"vary", b"origin")
        origin = _header(scope, b"origin")
        if origin not in self._origins:
            return (vary,)
        exposed = (b"access-control-expose-headers", b"retry-after")
        return (vary, (b"access-control-allow-origin", origin), exposed)

    def _is_preflight(self, scope: Scope) -> bool:
        return (
            scope["method"] == "OPTIONS"
            and scope["path"].startswith(BASE)
            and _header(scope, b"origin") in self._origins
            and bool(_header(scope, b"access-control-request-method"))
        )


_PREFLIGHT: Final[Sequence[_Header]] = (
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
)


class _Body:
    """The body of one request: not larger than its path allows, and whole within a time."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._most = _most(scope["path"])
        self._receive = receive
        self._taken = 0
        self._whole = False
        self._until = asyncio.get_running_loop().time() + BODY_S

    async def receive(self) -> Message:
        """Return the next message; raise HTTPException 413 or 408."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                HTTPStatus.REQUEST_TIMEOUT,
                f"A body is sent within {BODY_S:.0f} seconds.",
            ) from None
        self._taken += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._taken > self._most:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                _too_large(self._most),
            )
        return message


def read_origins(text: str) -> frozenset[str]:
    """Return the origins of the setting ANXIN_CORS_ORIGINS; raise SettingError."""
    origins = frozenset(one.strip().lower() for one in text.split(",") if one.strip())
    for origin in origins:
        check_url(origin, "An origin in ANXIN_CORS_ORIGINS")
        parts = urlsplit(origin)
        if origin != f"{parts.scheme}://{parts.netloc}":
            raise SettingError(
                f"ANXIN_CORS_ORIGINS: {origin!r} is no origin; write scheme, host and port only."
            )
    return origins


def _most(path: str) -> int:
    if path == LARGE:
        return LARGE_BODY
    return SMALL_BODY if path.startswith(SMALL) or not path.startswith(BASE) else MOST_BODY


def _too_large(most: int) -> str:
    return f"A request to this path carries at most {most} bytes."


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope["headers"] if name == wanted), b"")


def _declared_length(scope: Scope) -> int:
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else 0


def _caching(scope: Scope, message: Message) -> list[_Header]:
    """Answers of the API hold personal data: no cache may keep them."""
    if not scope["path"].startswith("/api/"):
        return []
    if any(name == b"cache-control" for name, _ in message["headers"]):
        return []
    return [(b"cache-control", b"no-store")]
