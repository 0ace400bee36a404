"""Web Push byte for byte: the example of RFC 8291, the token of RFC 8292, keys, subscriptions."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from anxin.notify import web_push
from anxin.notify.channel import Contact
from anxin.notify.notice import Notice
from anxin.notify.web import Web
from anxin.notify.web_push import WebPush
from tests.push_service import Browser, verify_vapid

NOW = datetime(2026, 11, 23, 13, 40, 5, tzinfo=UTC)
KEY = "7:1:0:first:u3:web_push"
SUBJECT = "mailto:it@care.example.cn"
# RFC 8291, section 5 and appendix A.
PRIVATE = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
PUBLIC = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
P256DH = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
ENCRYPTED = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS"
    "6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qu"
    "lcy4a-fN"
)


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def address(**changes: Any) -> str:
    """Return a subscription as a browser writes it, with other fields or none in their place."""
    keys = {"p256dh": P256DH, "auth": AUTH} | changes.pop("keys", {})
    there = {"endpoint": "https://push.example.com/v2/abc", "expirationTime": None, "keys": keys}
    return msgspec.json.encode(there | changes).decode()


def notice(**changes: Any) -> Notice:
    return msgspec.structs.replace(
        Notice(
            alarm_ids=("7",), priority="high", kind="sos", what_zh="紧急呼叫",
            what_en="Emergency call", place="安心养老院 · 201 · 2 床", who="王**",
            at="11-23 21:40:05", link="https://care.example.cn/?alarm=7",
        ),
        **changes,
    )  # fmt: skip


def private_key() -> ec.EllipticCurvePrivateKey:
    key = web_push.read_private_key(PRIVATE)
    assert key is not None
    return key


def test_the_example_of_rfc_8291_is_encrypted_byte_for_byte() -> None:
    subscription = web_push.read_subscription(address())
    assert subscription is not None
    body = web_push.encrypt(
        b"When I grow up, I want to be a watermelon",
        subscription,
        sender=private_key(),
        salt=raw(SALT),
    )
    assert body == raw(ENCRYPTED)


def test_the_browser_of_the_tests_reads_the_example_of_rfc_8291() -> None:
    number = int.from_bytes(raw("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), "big")
    browser = Browser(ec.derive_private_key(number, ec.SECP256R1()), raw(AUTH))
    assert browser.read(raw(ENCRYPTED)) == b"When I grow up, I want to be a watermelon"


@pytest.mark.parametrize(
    ("endpoint", "audience"),
    [
        ("https://push.example.com/v2/abc?x=1", "https://push.example.com"),
        ("https://PUSH.example.com:443/v2", "https://push.example.com"),
        ("https://push.example.com:8443?x=1", "https://push.example.com:8443"),
        ("http://127.0.0.1:8080/v2", "http://127.0.0.1:8080"),
    ],
)
def test_the_token_names_the_push_service_us_and_an_end_within_a_day(
    endpoint: str, audience: str
) -> None:
    header = web_push.authorize(private_key(), SUBJECT, endpoint, NOW)
    token = verify_vapid(header)
    assert header.endswith(f", k={PUBLIC}")
    assert token.claims == {
        "aud": audience,
        "exp": int((NOW + timedelta(hours=12)).timestamp()),
        "sub": SUBJECT,
    }
    assert token.head == {"typ": "JWT", "alg": "ES256"}


def test_a_token_that_was_changed_is_not_ours() -> None:
    header = web_push.authorize(private_key(), SUBJECT, "https://push.example.com/", NOW)
    theirs = web_push.authorize(private_key(), SUBJECT, "https://push.example.org/", NOW)
    head, _, signature = header.split(".")
    with pytest.raises(InvalidSignature):
        verify_vapid(".".join((head, theirs.split(".")[1], signature)))


def test_a_name_for_push_services_is_short_url_safe_and_one_for_each_key() -> None:
    name = web_push.topic(KEY)
    assert len(name) == 32
    assert name.replace("-", "").replace("_", "").isalnum()
    assert web_push.topic(KEY) == name != web_push.topic(f"{KEY}2")


def test_the_message_says_what_where_who_and_when_and_leads_to_the_alarm() -> None:
    told = msgspec.json.decode(web_push.message(notice(), "tag"))
    assert told == {
        "web_push": 8030,
        "notification": {
            "title": "!!! 【安心】紧急呼叫 安心养老院 · 201 · 2 床 王**",
            "lang": "zh-CN",
            "body": (
                "时间 11-23 21:40:05 · 优先级 紧急\nEmergency call · high priority · 11-23 21:40:05"
            ),
            "tag": "tag",
            "navigate": "https://care.example.cn/?alarm=7",
            "requireInteraction": True,
        },
    }


@pytest.mark.parametrize("filling", ['"\\', "安", "a"])
def test_a_message_that_is_too_long_is_cut_to_what_push_services_take(filling: str) -> None:
    long = notice(place=filling * 900, lines=tuple(filling * 90 for _ in range(41)))
    plain = web_push.message(long, web_push.topic(KEY))
    assert web_push.MOST_BYTES * 0.8 < len(plain) <= web_push.MOST_BYTES
    subscription = web_push.read_subscription(address())
    assert subscription is not None
    body = web_push.encrypt(plain, subscription, sender=private_key(), salt=raw(SALT))
    assert len(body) <= 4096
    assert msgspec.json.decode(plain)["notification"]["navigate"] == long.link


def pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey, *, password: bytes = b"") -> str:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock).decode()


@pytest.mark.parametrize(
    "text",
    [
        PRIVATE,
        f"{PRIVATE}=\n",
        pem(private_key()),
        private_key()
        .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        .decode(),
    ],
)
def test_the_private_key_is_read_in_every_usual_form(text: str) -> None:
    key = web_push.read_private_key(text)
    assert key is not None
    assert key.private_numbers() == private_key().private_numbers()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense!",
        "安心",
        PRIVATE[:-4],
        "A" * 43,
        "_" * 42 + "8",
        PUBLIC,
        "-----BEGIN PRIVATE KEY-----",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(Ed25519PrivateKey.generate()),
        pem(private_key(), password=b"locked"),
    ],
)
def test_a_private_key_that_cannot_sign_is_none(text: str) -> None:
    assert web_push.read_private_key(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://push.example.com/v2/abc",
        "[]",
        "{}",
        address(keys={"auth": "short"}),
        address(keys={"auth": None}),
        address(keys={"p256dh": P256DH[:-2]}),
        address(keys={"p256dh": P256DH[:-4] + "AAAA"}),
        address(keys={"p256dh": "安心"}),
        address(endpoint=7),
    ],
)
async def test_an_address_that_is_no_subscription_is_refused(text: str) -> None:
    async with Web() as web:
        channel = WebPush(web, private_key=PRIVATE, subject=SUBJECT)
        assert "subscription as JSON" in (channel.fault(Contact(text)) or "")
        assert channel.fault(Contact(address())) is None


@pytest.mark.parametrize(
    "endpoint",
    ["http://push.example.com/", "https://127.0.0.1/", "https://169.254.169.254/", "https://[x/"],
)
async def test_a_subscription_that_leads_into_the_own_network_is_refused(endpoint: str) -> None:
    async with Web() as web:
        channel = WebPush(web, private_key=PRIVATE, subject=SUBJECT)
        assert channel.fault(Contact(address(endpoint=endpoint)))


@pytest.mark.parametrize(
    ("key", "subject", "named"),
    [
        ("", SUBJECT, "ANXIN_VAPID_PRIVATE_KEY and"),
        (PRIVATE, "", "ANXIN_VAPID_SUBJECT."),
        ("nonsense", SUBJECT, "ANXIN_VAPID_PRIVATE_KEY to"),
        (PRIVATE, "it@care.example.cn", "ANXIN_VAPID_SUBJECT to"),
    ],
)
async def test_a_setting_that_is_missing_or_wrong_is_named(
    key: str, subject: str, named: str
) -> None:
    async with Web() as web:
        fault = WebPush(web, private_key=key, subject=subject).fault(Contact(address())) or ""
    assert fault.startswith("Set ANXIN_")
    assert named in fault
