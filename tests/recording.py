"""Recording stubs: servers that speak the providers' real protocols and remember what they heard.

Each checks a signature by its own arithmetic, as the provider does, and answers as it would.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec


@dataclass(frozen=True)
class Heard:
    """One request as it came over the wire."""

    path: str
    query: dict[str, str]
    raw_query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Reply:
    """What the stub answers; `delay` says how long it thinks about it."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


Answer = Callable[[Heard], Reply]


@dataclass
class Provider:
    """An HTTP server that remembers every request; `answer` may be replaced at any time."""

    answer: Answer
    address: str = ""
    heard: list[Heard] = field(default_factory=list)
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Provider"]:
        """Serve on a free port of 127.0.0.1."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.address = f"http://{host}:{port}"
        async with server, _ending(self._tasks):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with _connection(self._tasks, writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").strip().split("\r\n")
                _, target, _ = first.split(" ", 2)
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                parts = urlsplit(target)
                heard = Heard(
                    unquote(parts.path), dict(parse_qsl(parts.query)), parts.query, headers, body
                )
                self.heard.append(heard)
                reply = self.answer(heard)
                if reply.delay:
                    await asyncio.sleep(reply.delay)
                content = b"" if reply.body is None else msgspec.json.encode(reply.body)
                extra = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
                writer.write(
                    f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n"
                    f"content-type: application/json\r\n{extra}"
                    f"content-length: {len(content)}\r\n\r\n".encode()
                    + content
                )
                await writer.drain()


def wecom(heard: Heard) -> Reply:
    """Take a text as a WeCom robot does."""
    text = heard.json["text"]["content"]
    if heard.json["msgtype"] != "text" or len(text.encode()) > 2048:
        return Reply({"errcode": 40058, "errmsg": "invalid request"})
    return Reply({"errcode": 0, "errmsg": "ok"})


def dingtalk(secret: str) -> Answer:
    """Return what a DingTalk robot with this secret answers."""

    def answer(heard: Heard) -> Reply:
        stamp = heard.query.get("timestamp", "")
        digest = hmac.digest(secret.encode(), f"{stamp}\n{secret}".encode(), "sha256")
        if heard.query.get("sign") != base64.b64encode(digest).decode():
            return Reply({"errcode": 310000, "errmsg": "sign not match"})
        return Reply({"errcode": 0, "errmsg": "ok"})

    return answer


def feishu(secret: str) -> Answer:
    """Return what a Feishu robot with this secret answers."""

    def answer(heard: Heard) -> Reply:
        stamp = heard.json.get("timestamp", "")
        digest = hmac.digest(f"{stamp}\n{secret}".encode(), b"", "sha256")
        if heard.json.get("sign") != base64.b64encode(digest).decode():
            return Reply({"code": 19021, "msg": "sign match fail or timestamp is not within range"})
        return Reply({"code": 0, "msg": "success", "data": {}})

    return answer


@dataclass
class WechatAccount:
    """An official account: gives out tokens, lets the present one send."""

    token: str = "token-1"
    tokens_given: int = 0

    def __call__(self, heard: Heard) -> Reply:
        """Answer as api.weixin.qq.com."""
        if heard.path == "/cgi-bin/stable_token":
            if heard.json["secret"] != "wx-secret":
                return Reply({"errcode": 40125, "errmsg": "invalid appsecret"})
            self.tokens_given += 1
            return Reply({"access_token": self.token, "expires_in": 7200})
        if heard.query["access_token"] != self.token:
            return Reply({"errcode": 40001, "errmsg": "invalid credential"})
        if heard.json["touser"] == "stranger":
            return Reply({"errcode": 43004, "errmsg": "require subscribe"})
        return Reply({"errcode": 0, "errmsg": "ok", "msgid": 200163836})


def aliyun(key_secret: str) -> Answer:
    """Return what Aliyun answers to SendSms for the owner of this secret."""

    def answer(heard: Heard) -> Reply:
        parts = dict(
            part.split("=", 1)
            for part in heard.headers["authorization"].partition(" ")[2].split(",")
        )
        names = parts["SignedHeaders"].split(";")
        signed = "".join(f"{name}:{heard.headers[name]}\n" for name in names)
        payload = hashlib.sha256(heard.body).hexdigest()
        request = f"POST\n{heard.path}\n{heard.raw_query}\n{signed}\n{';'.join(names)}\n{payload}"
        text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(request.encode()).hexdigest()}"
        expected = hmac.new(key_secret.encode(), text.encode(), "sha256").hexdigest()
        if parts["Signature"] != expected:
            return Reply({"Code": "SignatureDoesNotMatch", "Message": "…"}, 400)
        return Reply({"Code": "OK", "Message": "OK", "BizId": "90061^0", "RequestId": "F655"})

    return answer


def tencent(secret_key: str) -> Answer:
    """Return what Tencent answers to SendSms for the owner of this key."""

    def answer(heard: Heard) -> Reply:
        scheme, _, rest = heard.headers["authorization"].partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        _, scope = parts["Credential"].split("/", 1)
        names = parts["SignedHeaders"].split(";")
        signed = "".join(f"{name}:{heard.headers[name]}\n" for name in names)
        payload = hashlib.sha256(heard.body).hexdigest()
        request = f"POST\n/\n\n{signed}\n{';'.join(names)}\n{payload}"
        stamp = heard.headers["x-tc-timestamp"]
        text = f"{scheme}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"TC3{secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        if parts["Signature"] != hmac.new(key, text.encode(), "sha256").hexdigest():
            error = {"Code": "AuthFailure.SignatureFailure", "Message": "…"}
            return Reply({"Response": {"Error": error, "RequestId": "1"}})
        status = {
            "SerialNo": "2024:1", "PhoneNumber": heard.json["PhoneNumberSet"][0], "Fee": 1,
            "SessionContext": heard.json["SessionContext"], "Code": "Ok",
            "Message": "send success", "IsoCode": "CN",
        }  # fmt: skip
        return Reply({"Response": {"SendStatusSet": [status], "RequestId": "2"}})

    return answer


@dataclass
class MailServer:
    """An SMTP server that takes mail only over STARTTLS and after a login."""

    identity: ssl.SSLContext
    offers_tls: bool = True
    refuses: int = 0
    """The code with which it refuses every recipient; 0 takes them."""
    address: str = ""
    logins: list[str] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["MailServer"]:
        """Serve on a free port of 127.0.0.1."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"localhost:{server.sockets[0].getsockname()[1]}"
        async with server, _ending(self._tasks):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = False

        async def say(text: str) -> None:
            writer.write(text.replace("\n", "\r\n").encode() + b"\r\n")
            await writer.drain()

        with _connection(self._tasks, writer):
            await say("220 stub")
            while line := (await reader.readuntil(b"\r\n")).decode().strip():
                verb = line.split(" ")[0].upper()
                if verb == "EHLO":
                    more = "250-AUTH PLAIN\n" if secure else ""
                    more += "250-STARTTLS\n" if self.offers_tls and not secure else ""
                    await say(f"250-stub\n{more}250 8BITMIME")
                elif verb == "STARTTLS":
                    await say("220 go on")
                    await writer.start_tls(self.identity)
                    secure = True
                elif verb == "AUTH":
                    self.logins.append(base64.b64decode(line.split(" ")[2]).decode())
                    await say("235 ok")
                elif verb == "RCPT" and self.refuses:
                    await say(f"{self.refuses} no")
                elif verb == "DATA":
                    await say("354 go on")
                    raw = (await reader.readuntil(b"\r\n.\r\n"))[:-3]
                    mail = message_from_bytes(raw, policy=policy.default)
                    assert isinstance(mail, EmailMessage)
                    self.mails.append(mail)
                    await say("250 taken")
                elif verb == "QUIT":
                    await say("221 bye")
                    break
                else:
                    await say("250 ok" if secure or verb in ("RSET", "NOOP") else "530 use TLS")


@contextlib.asynccontextmanager
async def _ending(tasks: set["asyncio.Task[Any]"]) -> AsyncIterator[None]:
    """End what still serves a connection: a client may keep its own open."""
    yield
    still = list(tasks)
    for task in still:
        task.cancel()
    await asyncio.gather(*still, return_exceptions=True)


@contextlib.contextmanager
def _connection(tasks: set["asyncio.Task[Any]"], writer: asyncio.StreamWriter) -> Iterator[None]:
    """Be a connection's handler until the client leaves."""
    task = asyncio.current_task()
    assert task is not None
    tasks.add(task)
    try:
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
        ):
            yield
    finally:
        tasks.discard(task)
        writer.close()
