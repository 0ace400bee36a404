"""Whatever comes in from outside is refused in its own way, or understood: never a crash."""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anxin.config import Address
from anxin.errors import SettingError
from anxin.messages import decode_event, decode_result, decode_state
from anxin.notify import aliyun_sms, tencent_sms, web
from anxin.notify.channel import Channel, Contact, DeliveryError, Sent
from anxin.notify.dingtalk import Dingtalk
from anxin.notify.feishu import Feishu
from anxin.notify.voice import Voice
from anxin.notify.web_push import read_private_key, read_subscription
from anxin.notify.webhook import Webhook
from anxin.notify.wechat import Wechat
from anxin.notify.wecom import Wecom
from api.answers import place_after, serial_after
from api.problems import Unusable
from api.viewer import Displayed, Hello, Received, StationReport
from ingest.bridge import Broker
from ingest.columns import copy_rows, gather
from ingest.inbound import Device, Inbound, Kind
from ingest.remembered import FILE, Remembered
from ingest.spool import Spool, Spooled
from tests.integration.test_notify_channels import NOTICE

NOW_US = 1_800_000_000_000_000
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["NaN", "²", "\x00", "2026-11-23T00:00:00Z", "Ok", "OK", -1, 0, 1e308, 2**63])
)


def json_with(*names: str) -> st.SearchStrategy[Any]:
    """Return any JSON, in which these names come up more often than by chance."""
    keys = st.sampled_from(names) | st.text(max_size=8) if names else st.text(max_size=8)
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=12,
    )


def encoded(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")


@given(st.binary(max_size=200) | json_with("type", "ticket", "cursor", "alarm_id").map(encoded))
def test_frames_of_a_client(frame: bytes) -> None:
    for kind in (Hello, Received | Displayed | StationReport):
        try:
            found = msgspec.json.decode(frame, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        assert isinstance(found, Hello | Received | Displayed | StationReport)


@given(st.text(max_size=200))
def test_cursors(after: str) -> None:
    for read in (serial_after, lambda text: place_after(text, tuple[int, str])):
        try:
            read(after)
        except Unusable:
            continue


METRICS = ("ts", "seq", "hr", "temp", "steps", "presence", "lat", "consciousness", "oxygen", "x")


@given(st.lists(st.binary(max_size=100) | json_with(*METRICS).map(encoded), min_size=1, max_size=6))
def test_readings_become_columns(payloads: list[bytes]) -> None:
    inbound = Inbound(Device("mat", 11, 0), Kind.TELEMETRY, payloads, NOW_US, lambda _: None)
    columns, refusals = gather([inbound], {})
    assert not np.isinf(columns.values).any()
    assert len(columns.keys) == len(columns.ts_us)
    assert all(refusal.reason for refusal in refusals)
    assert copy_rows(columns).endswith(b"\xff\xff")


@given(json_with("id", "type", "ts", "detail", "online", "battery", "rssi", "firmware", "ok"))
def test_events_states_and_results(value: object) -> None:
    for decode in (decode_event, decode_state, decode_result):
        found, reasons = decode(encoded(value))
        assert found is not None or reasons


@given(
    st.lists(
        st.tuples(
            st.text("abc_-9", min_size=1, max_size=64),
            st.sampled_from(list(Kind)),
            st.integers(0, 2**53),
            st.lists(st.binary(max_size=300), min_size=1, max_size=4),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_rows_of_the_spool(rows: list[tuple[str, Kind, int, list[bytes], bool]]) -> None:
    async def there_and_back() -> dict[bool, list[Spooled]]:
        with tempfile.TemporaryDirectory() as directory:
            async with Spool(Path(directory), 8) as spool:
                for *row, urgent in rows:
                    await spool.put([Spooled(*row)], urgent=urgent)  # type: ignore[arg-type]
                return {
                    urgent: [one for _, one in await spool.take(10_000, urgent=urgent)]
                    for urgent in (True, False)
                }

    found = asyncio.run(there_and_back())
    for urgent in (True, False):
        assert found[urgent] == [Spooled(*row[:4]) for row in rows if row[4] is urgent]


@given(st.binary(max_size=300) | json_with().map(lambda one: msgspec.msgpack.encode(repr(one))))
def test_what_ingest_remembers_of_devices(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / FILE).write_bytes(content)
        kept = Remembered(Path(directory), 24)
        kept.load()
        assert kept.recall("mat", b"secret") is None


@given(json_with("biz_id", "success", "sid", "report_status"))
def test_reports_of_providers(body: object) -> None:
    for read in (aliyun_sms.read_reports, tencent_sms.read_reports):
        for number, arrived in read(body):
            assert isinstance(number, str)
            assert isinstance(arrived, bool)


class Answering:
    """A web whose every answer is the same."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    async def post(self, *_: object, **__: object) -> object:
        return self._answer


CHANNELS = {
    "wecom": (Wecom, "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=x"),
    "dingtalk": (Dingtalk, "https://oapi.dingtalk.com/robot/send?access_token=x"),
    "feishu": (Feishu, "https://open.feishu.cn/open-apis/bot/v2/hook/x"),
    "webhook": (Webhook, "https://example.cn/hook"),
    "voice": (lambda w: Voice(w, url="https://example.cn", secret="s"), "13800138000"),
    "wechat": (
        lambda w: Wechat(w, app_id="a", secret="s", template="t", fields="thing1=what"),
        "openid",
    ),
    "aliyun": (
        lambda w: aliyun_sms.AliyunSms(
            w, key_id="k", key_secret="s", sign_name="n", template="t", reports=False
        ),
        "13800138000",
    ),
    "tencent": (
        lambda w: tencent_sms.TencentSms(
            w, secret_id="i", secret_key="k", app_id="a", sign_name="n", template="t",
            reports=False,
        ),
        "13800138000",
    ),
}  # fmt: skip
WORDS = (
    "errcode", "errmsg", "code", "StatusCode", "access_token", "expires_in", "msgid", "id",
    "Code", "BizId", "Response", "Error", "SendStatusSet", "SerialNo", "Message",
)  # fmt: skip


one_level = st.dictionaries(st.sampled_from(WORDS), json_with(*WORDS), max_size=6)
nested = one_level | st.fixed_dictionaries(
    {"Response": st.fixed_dictionaries({}, optional={
        "Error": one_level | scalars, "SendStatusSet": st.lists(one_level | scalars) | one_level,
    })}
)  # fmt: skip


@pytest.mark.parametrize("name", CHANNELS)
@given(answer=json_with(*WORDS) | one_level | nested)
@settings(max_examples=150)
def test_answers_of_providers(name: str, answer: object) -> None:
    make, address = CHANNELS[name]
    channel: Channel = make(Answering(answer))  # type: ignore[no-untyped-call]
    try:
        sent = asyncio.run(channel.send(NOTICE, Contact(address, "secret"), key="k" * 32))
    except DeliveryError:
        return  # refused in words of ours
    assert isinstance(sent, Sent)
    assert sent.provider_id is None or isinstance(sent.provider_id, str)


@given(
    status=st.sampled_from([200, 204, 302, 400, 404, 408, 429, 500, 503]),
    body=st.binary(max_size=60),
    rest=st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=30)
    | st.sampled_from(["²", "9" * 400, "Mon, 23 Nov 2026 23:00:00 GMT", "Mon, 99 Nov 99999"]),
)
def test_http_answers(status: int, body: bytes, rest: str) -> None:
    headers = [(b"retry-after", rest.encode("latin-1"))]
    response = httpx.Response(status, headers=headers, content=body)
    try:
        web._judged(response, coded=False)
    except DeliveryError as error:
        after = error.retry_after_seconds
        assert after is None or 0 <= after <= 600


@given(st.text(max_size=120) | json_with("endpoint", "keys", "p256dh", "auth").map(json.dumps))
def test_subscriptions_and_keys_of_web_push(text: str) -> None:
    read_subscription(text)
    read_private_key(text)
    read_private_key(f"-----BEGIN PRIVATE KEY-----\n{text}")


@given(st.text(max_size=60) | st.from_regex(r"mqtts?://\S{0,20}(:\d{0,7})?", fullmatch=True))
def test_addresses(text: str) -> None:
    for parse in (Address.parse, Broker.parse):
        try:
            parse(text)
        except SettingError:
            continue
