"""What surrounds every request: a limit to its body, headers for browsers, metrics."""

from http import HTTPStatus
from time import perf_counter
from typing import Final

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import problem

MOST_BODY: Final = 1024 * 1024
_TOO_LARGE: Final = f"A request carries at most {MOST_BODY} bytes."
_CONTENT: Final = (
    b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    b"object-src 'none'"
)
_SECURITY: Final = [
    (b"content-security-policy", _CONTENT),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status = 500
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MOST_BODY:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_SECURITY, *_caching(scope, message)]
            await send(message)

        try:
            if _declared_length(scope) > MOST_BODY:
                refusal = problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
                await refusal(scope, receive, noted)
            else:
                await self._app(scope, bounded, noted)
        finally:
            # The template of the path, or one word for all that is not ours: labels stay few.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(scope["method"], route, status).inc()
            self._metrics.latency_s.labels(route).observe(perf_counter() - began)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


def _caching(scope: Scope, message: Message) -> list[tuple[bytes, bytes]]:
    """Answers of the API hold personal data: no cache may keep them."""
    if not scope["path"].startswith("/api/"):
        return []
    if any(name == b"cache-control" for name, _ in message["headers"]):
        return []
    return [(b"cache-control", b"no-store")]
