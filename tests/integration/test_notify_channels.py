"""Every channel on the wire against a stub that checks as its provider does."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anxin.notify.aliyun_sms import AliyunSms
from anxin.notify.channel import Contact, DeliveryError
from anxin.notify.dingtalk import Dingtalk
from anxin.notify.feishu import Feishu
from anxin.notify.mail import Mail
from anxin.notify.notice import Notice
from anxin.notify.tencent_sms import TencentSms
from anxin.notify.voice import Voice
from anxin.notify.web import Web
from anxin.notify.webhook import Webhook, sign
from anxin.notify.wechat import Wechat
from anxin.notify.wecom import Wecom
from tests import recording
from tests.recording import MailServer, Provider, Reply, WechatAccount

NOTICE = Notice(
    alarm_ids=("7",),
    priority="high",
    kind="sos",
    what_zh="紧急呼叫",
    what_en="Emergency call",
    place="安心养老院 · 201 · 2 床",
    who="王**",
    at="11-23 21:40:05",
    link="https://care.example.cn/?alarm=7",
)
KEY = "7:1:0:first:u3:voice"


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web(allow_private=True) as client:
        yield client


async def test_wecom_takes_a_text(web: Web) -> None:
    async with Provider(recording.wecom).serving() as stub:
        url = f"{stub.address}/cgi-bin/webhook/send?key=k"
        await Wecom(web).send(NOTICE, Contact(url), key=KEY)
    (heard,) = stub.heard
    assert heard.query == {"key": "k"}
    assert heard.json == {"msgtype": "text", "text": {"content": NOTICE.text()}}


async def test_dingtalk_accepts_the_signature_and_refuses_another(web: Web) -> None:
    async with Provider(recording.dingtalk("SECabc")).serving() as stub:
        url = f"{stub.address}/robot/send?access_token=t"
        await Dingtalk(web).send(NOTICE, Contact(url, "SECabc"), key=KEY)
        with pytest.raises(DeliveryError, match="310000") as refused:
            await Dingtalk(web).send(NOTICE, Contact(url, "SECother"), key=KEY)
    assert refused.value.permanent
    assert stub.heard[0].query["access_token"] == "t"


async def test_feishu_accepts_the_signature_and_refuses_another(web: Web) -> None:
    async with Provider(recording.feishu("abc")).serving() as stub:
        url = f"{stub.address}/open-apis/bot/v2/hook/h"
        await Feishu(web).send(NOTICE, Contact(url, "abc"), key=KEY)
        with pytest.raises(DeliveryError, match="19021"):
            await Feishu(web).send(NOTICE, Contact(url, "other"), key=KEY)
    assert stub.heard[0].json["content"] == {"text": NOTICE.text()}


@pytest.mark.parametrize(
    ("code", "permanent", "rest"), [(45009, False, 60.0), (-1, False, 1.0), (93000, True, None)]
)
async def test_a_robots_code_says_whether_to_try_again(
    web: Web, code: int, permanent: bool, rest: float | None
) -> None:
    async with Provider(lambda _: Reply({"errcode": code, "errmsg": "…"})).serving() as stub:
        with pytest.raises(DeliveryError) as refused:
            await Wecom(web).send(NOTICE, Contact(stub.address), key=KEY)
    assert (refused.value.permanent, refused.value.retry_after_seconds) == (permanent, rest)


def wechat(web: Web, endpoint: str) -> Wechat:
    return Wechat(
        web, app_id="wx1", secret="wx-secret", template="tpl",
        fields="thing1=what,thing2=place,time4=time", endpoint=endpoint,
    )  # fmt: skip


async def test_wechat_keeps_its_token_and_renews_a_stale_one(web: Web) -> None:
    account = WechatAccount()
    async with Provider(account).serving() as stub:
        channel = wechat(web, stub.address)
        sent = await channel.send(NOTICE, Contact("openid"), key=KEY)
        await channel.send(NOTICE, Contact("openid"), key=KEY)
        assert (sent.provider_id, account.tokens_given) == ("200163836", 1)
        account.token = "token-2"
        await channel.send(NOTICE, Contact("openid"), key=KEY)
        assert account.tokens_given == 2
        with pytest.raises(DeliveryError, match="43004") as refused:
            await channel.send(NOTICE, Contact("stranger"), key=KEY)
    assert refused.value.permanent
    body = stub.heard[1].json
    assert body["client_msg_id"] == KEY
    assert body["data"]["thing1"] == {"value": "紧急呼叫"}
    assert body["url"] == NOTICE.link


async def test_aliyun_accepts_the_signature_and_refuses_another(web: Web) -> None:
    async with Provider(recording.aliyun("right")).serving() as stub:

        def channel(secret: str) -> AliyunSms:
            return AliyunSms(
                web, key_id="id", key_secret=secret, sign_name="安心", template="SMS_1",
                reports=True, endpoint=stub.address,
            )  # fmt: skip

        sent = await channel("right").send(NOTICE, Contact("13800138000"), key=KEY)
        assert sent.provider_id == "90061^0"
        with pytest.raises(DeliveryError, match="SignatureDoesNotMatch") as refused:
            await channel("wrong").send(NOTICE, Contact("13800138000"), key=KEY)
    assert refused.value.permanent
    query = stub.heard[0].query
    assert (query["PhoneNumbers"], query["OutId"]) == ("13800138000", KEY)
    assert '"who":"王**"' in query["TemplateParam"]
    assert stub.heard[0].headers["x-acs-action"] == "SendSms"


async def test_tencent_accepts_the_signature_and_refuses_another(web: Web) -> None:
    async with Provider(recording.tencent("right")).serving() as stub:

        def channel(secret: str) -> TencentSms:
            return TencentSms(
                web, secret_id="id", secret_key=secret, app_id="1400", sign_name="安心",
                template="1", reports=False, endpoint=stub.address,
            )  # fmt: skip

        sent = await channel("right").send(NOTICE, Contact("138 0013 8000"), key=KEY)
        assert sent.provider_id == "2024:1"
        with pytest.raises(DeliveryError, match="SignatureFailure"):
            await channel("wrong").send(NOTICE, Contact("13800138000"), key=KEY)
    body = stub.heard[0].json
    assert body["PhoneNumberSet"] == ["+8613800138000"]
    assert body["TemplateParamSet"][0] == "紧急呼叫"
    assert body["SessionContext"] == KEY


async def test_a_webhook_is_signed_and_carries_the_key_and_no_vital_sign(web: Web) -> None:
    async with Provider(lambda _: Reply({"id": "their-id"})).serving() as stub:
        contact = Contact(f"{stub.address}/hook", "secret")
        sent = await Webhook(web).send(NOTICE, contact, key=KEY)
    (heard,) = stub.heard
    stamp = int(heard.headers["x-anxin-timestamp"])
    assert (
        heard.headers["x-anxin-signature"] == sign("secret", heard.body, stamp)["x-anxin-signature"]
    )
    assert heard.headers["idempotency-key"] == heard.json["key"] == KEY
    assert sent.provider_id == "their-id"
    assert heard.headers["host"] in stub.address


async def test_the_voice_gateway_is_told_whom_to_call_and_what_to_say(web: Web) -> None:
    async with Provider(lambda _: Reply(None, 204)).serving() as stub:
        await Voice(web, url=stub.address, secret="s").send(NOTICE, Contact("13800138000"), key=KEY)
    assert stub.heard[0].json["to"] == "+8613800138000"
    assert "紧急呼叫" in stub.heard[0].json["text"]


@pytest.mark.parametrize(
    ("reply", "permanent", "rest"),
    [
        (Reply(None, 429, {"retry-after": "7"}), False, 7.0),
        (Reply(None, 503), False, None),
        (Reply(None, 500), False, None),
        (Reply({"error": "gone"}, 410), True, None),
        (Reply(None, 302, {"location": "http://127.0.0.1/"}), True, None),
    ],
)
async def test_a_status_says_whether_to_try_again(
    web: Web, reply: Reply, permanent: bool, rest: float | None
) -> None:
    async with Provider(lambda _: reply).serving() as stub:
        with pytest.raises(DeliveryError) as refused:
            await Webhook(web).send(NOTICE, Contact(stub.address), key=KEY)
    assert (refused.value.permanent, refused.value.retry_after_seconds) == (permanent, rest)
    assert len(stub.heard) == 1


async def test_a_name_that_leads_into_the_own_network_is_refused_before_anything_is_sent() -> None:
    async with Web() as web:
        with pytest.raises(DeliveryError, match="not public") as refused:
            await web.post("https://localhost/hook", b"{}")
    assert refused.value.permanent


async def test_nobody_there_is_a_passing_failure(web: Web, free_port: int) -> None:
    with pytest.raises(DeliveryError) as refused:
        await web.post(f"http://127.0.0.1:{free_port}/", b"{}")
    assert not refused.value.permanent


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificates")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        f" -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key


def mail_server(certificate: tuple[Path, Path], **options: object) -> MailServer:
    identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.load_cert_chain(*certificate)
    return MailServer(identity, **options)  # type: ignore[arg-type]  # fields by name


def mail(server: MailServer, certificate: tuple[Path, Path] | None) -> Mail:
    trust = ssl.create_default_context(cafile=str(certificate[0])) if certificate else None
    return Mail(
        server=server.address, user="anxin", password="pw", sender="anxin@example.cn", trust=trust
    )


async def test_mail_goes_over_tls_after_a_login_with_an_id_made_of_the_key(
    certificate: tuple[Path, Path],
) -> None:
    async with mail_server(certificate).serving() as server:
        first = await mail(server, certificate).send(NOTICE, Contact("n@example.cn"), key=KEY)
        again = await mail(server, certificate).send(NOTICE, Contact("n@example.cn"), key=KEY)
    assert first == again
    assert server.logins[0] == "\0anxin\0pw"
    message = server.mails[0]
    assert message["Subject"] == NOTICE.title()
    assert message["Message-ID"] == first.provider_id
    assert message.get_content().splitlines() == NOTICE.text().splitlines()


async def test_mail_is_never_sent_in_clear_or_to_an_unknown_certificate(
    certificate: tuple[Path, Path],
) -> None:
    async with mail_server(certificate, offers_tls=False).serving() as server:
        with pytest.raises(DeliveryError, match="no TLS") as refused:
            await mail(server, certificate).send(NOTICE, Contact("n@example.cn"), key=KEY)
        assert refused.value.permanent
    async with mail_server(certificate).serving() as server:
        with pytest.raises(DeliveryError, match="certificate"):
            await mail(server, None).send(NOTICE, Contact("n@example.cn"), key=KEY)
        assert server.mails == []


@pytest.mark.parametrize(("code", "permanent"), [(550, True), (451, False)])
async def test_a_refused_recipient_is_final_or_not_by_its_code(
    certificate: tuple[Path, Path], code: int, permanent: bool
) -> None:
    async with mail_server(certificate, refuses=code).serving() as server:
        with pytest.raises(DeliveryError, match=str(code)) as refused:
            await mail(server, certificate).send(NOTICE, Contact("n@example.cn"), key=KEY)
    assert refused.value.permanent is permanent


async def test_several_messages_at_once_ask_for_one_token(web: Web) -> None:
    account = WechatAccount()
    async with Provider(account).serving() as stub:
        channel = wechat(web, stub.address)
        await asyncio.gather(
            *(channel.send(NOTICE, Contact("openid"), key=f"{n}") for n in range(5))
        )
    assert account.tokens_given == 1
