"""A provider of identities in the test's own process: OpenID Connect over real HTTP, made for it.

It speaks what it should: discovery, authorization with PKCE, codes good once, keys. What a test
sets in `Lies` it does wrong.
"""

import base64
import contextlib
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

CLIENT_ID = "anxin"
CLIENT_SECRET = "a secret of the client"


@dataclass
class Lies:
    """What the provider does wrong; nothing, unless a test says so."""

    claims: dict[str, Any] = field(default_factory=dict)
    """Put over the true claims; None takes one away."""
    answer: dict[str, str | None] = field(default_factory=dict)
    """Put over the parameters that the browser brings back."""
    metadata: dict[str, Any] = field(default_factory=dict)
    token: str | None = None
    """What the token endpoint says instead of an ID token."""
    algorithm: str | None = None
    sign_with_unpublished: bool = False
    key_id: str | None = None
    """Named in the token instead of the true one."""
    status: int | None = None
    """What every request is answered with instead."""
    hangs_s: float = 0.0


@dataclass
class IdentityProvider:
    """One issuer with its keys, who is logged in there, and all that was asked of it."""

    issuer: str
    subject: str = "subject-1"
    algorithm: str = "RS256"
    issuer_in_answer: bool = True
    interactive: bool = False
    """Show a page with a link to go on by, instead of going on at once."""
    authenticated_at: float | None = None
    """When who is logged in last showed itself; None: at the time of the request."""
    lies: Lies = field(default_factory=Lies)
    keys: list[Any] = field(default_factory=list)
    """What it publishes; it signs with the last one."""
    signs_with: Any = None
    """Or with this one."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Paths that were asked for."""
    authorized: list[dict[str, str]] = field(default_factory=list)

    def rotate(self, *, keep: bool = True) -> None:
        """Sign with a new key from now on; `keep` publishes the old ones beside it."""
        kid = secrets.token_hex(4)
        options = {"kid": kid, "use": "sig"}
        new = (
            ECKey.generate_key("P-256", options)
            if self.algorithm.startswith("ES")
            else RSAKey.generate_key(2048, options)
        )
        self.keys = [*(self.keys if keep else []), new]

    def metadata(self) -> dict[str, Any]:
        """Return the discovery document."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.issuer_in_answer,
        } | self.lies.metadata

    def authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser is sent back to, with a code."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        self.authorized.append(asked)
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        answer: dict[str, str | None] = {"code": code, "state": asked["state"]}
        if self.issuer_in_answer:
            answer["iss"] = self.issuer
        answer |= self.lies.answer
        given = {name: value for name, value in answer.items() if value is not None}
        return f"{asked['redirect_uri']}?{urlencode(given)}"

    def redeem(self, sent: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return what the token endpoint answers."""
        proof = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {proof}":
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(sent.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(
            hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        )
        if (
            asked is None
            or sent.get("grant_type") != "authorization_code"
            or sent.get("redirect_uri") != asked["redirect_uri"]
            or challenge.decode().rstrip("=") != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {
            "access_token": "not used",
            "token_type": "Bearer",
            "id_token": self.lies.token or self.id_token(asked),
        }

    def id_token(self, asked: dict[str, str]) -> str:
        """Return the signed token about who is logged in."""
        now = time.time()
        claims = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": CLIENT_ID,
            "iat": int(now),
            "exp": int(now) + 300,
            "nonce": asked["nonce"],
            "auth_time": int(now if self.authenticated_at is None else self.authenticated_at),
        } | self.lies.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = self.lies.algorithm or self.algorithm
        if algorithm == "none":
            return _unsigned(claims)
        key = self.signs_with or self.keys[-1]
        header = {"alg": algorithm, "kid": self.lies.key_id or key.kid}
        if algorithm.startswith("HS"):
            # The classic confusion: the public key, or the client's secret, taken for a shared one.
            shared = key.as_pem(private=False) if algorithm == "HS512" else CLIENT_SECRET.encode()
            key = OctKey.import_key(base64.b64encode(shared))
        if self.lies.sign_with_unpublished:
            key = RSAKey.generate_key(2048)
        return jwt.encode(header, claims, key, algorithms=[algorithm])


def _unsigned(claims: dict[str, Any]) -> str:
    parts = [{"alg": "none"}, claims]
    encoded = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts
    ]
    return f"{encoded[0]}.{encoded[1]}."


@contextlib.contextmanager
def serving(host: str = "127.0.0.1", **options: Any) -> Iterator[IdentityProvider]:
    """Serve a provider on a free port of loopback, by this name."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        provider = IdentityProvider(f"http://{host}:{server.server_port}", **options)
        provider.rotate()
        server.provider = provider  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Serve discovery, keys and the page where one logs in."""
        provider: IdentityProvider = self.server.provider  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not self._goes_on(parts.path):
            return
        if parts.path == "/.well-known/openid-configuration":
            self._say(200, provider.metadata())
        elif parts.path == "/keys":
            self._say(200, {"keys": [key.as_dict(private=False) for key in provider.keys]})
        elif parts.path == "/authorize":
            back = provider.authorize(query)
            page = f'<!doctype html><title>id</title><a href="{escape(back)}">go on</a>'.encode()
            self.send_response(200 if provider.interactive else 302)
            self.send_header("location", back)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        else:
            self._say(404, {})

    def do_POST(self) -> None:
        """Serve the token endpoint."""
        provider: IdentityProvider = self.server.provider  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        if self._goes_on(self.path):
            sent = {name: values[0] for name, values in parse_qs(body).items()}
            self._say(*provider.redeem(sent, self.headers.get("authorization", "")))

    def _goes_on(self, path: str) -> bool:
        provider: IdentityProvider = self.server.provider  # type: ignore[attr-defined]
        provider.asked.append(path)
        if provider.lies.hangs_s:
            time.sleep(provider.lies.hangs_s)
        if provider.lies.status is not None:
            self._say(provider.lies.status, {"error": "server_error"})
            return False
        return True

    def _say(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
