"""Signatures against the providers' own published examples, and what may be asked at all."""

from datetime import UTC, datetime

import pytest

from anxin.config import Settings
from anxin.notify import aliyun_sms, dingtalk, feishu, tencent_sms, webhook
from anxin.notify.channel import Contact
from anxin.notify.channels import open_channels
from anxin.notify.phone import plain_number
from anxin.notify.robot import cut
from anxin.notify.web import Web


def test_aliyun_signs_the_example_of_its_documentation() -> None:
    headers, query = aliyun_sms.sign(
        key_id="YourAccessKeyId",
        key_secret="YourAccessKeySecret",
        host="ecs.cn-shanghai.aliyuncs.com",
        action="RunInstances",
        version="2014-05-26",
        query={
            "RegionId": "cn-shanghai",
            "ImageId": "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd",
        },
        now=datetime(2023, 10, 26, 10, 22, 32, tzinfo=UTC),
        nonce="3156853299f313e23d1673dc12e1703d",
    )
    assert headers["authorization"].endswith(
        "Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    )
    assert query.startswith("ImageId=")


def test_tencent_signs_the_example_of_its_documentation() -> None:
    body = (
        b'{"Limit": 1, "Filters": [{"Values": ["\\u672a\\u547d\\u540d"], "Name": "instance-name"}]}'
    )
    header = tencent_sms.sign(
        secret_id="AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE",
        secret_key="Gu5t9xGARNpq86cd98joQYCN3EXAMPLE",
        service="cvm",
        host="cvm.tencentcloudapi.com",
        body=body,
        now=datetime.fromtimestamp(1551113065, UTC),
    )
    assert header == (
        "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/"
        "tc3_request, SignedHeaders=content-type;host,"
        " Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168"
    )


def test_the_robots_sign_each_in_its_own_way() -> None:
    # The expected values were made with `openssl dgst -sha256 -mac HMAC`.
    # DingTalk signs "time\nsecret" with the secret; Feishu signs nothing with "time\nsecret".
    ours = dingtalk.sign("this is secret", 1_700_000_000_000)
    theirs = feishu.sign("this is secret", 1_700_000_000)
    assert ours["timestamp"] == "1700000000000"
    assert theirs["timestamp"] == "1700000000"
    assert ours["sign"] == "sSFWELbV2YwjdDQhWZwTcWlX5BWUx5J6TPpsZmuPii0="
    assert theirs["sign"] == "OfGzRzoUICBOoc8wVra1e4A1hPfbZ9zqXozA8CWVUuY="


def test_a_webhook_signs_its_time_and_its_body() -> None:
    headers = webhook.sign("secret", b'{"a":1}', 1_700_000_000)
    assert headers["x-anxin-timestamp"] == "1700000000"
    assert headers["x-anxin-signature"] == (
        "v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
    )
    assert webhook.sign("", b"{}", 1_700_000_000) == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00::1]/",
        "https://0.0.0.0/",
        "https://user:pass@example.com/",
        "https://example.com:0/",
        "https://example.com:x/",
        "ftp://example.com/",
        "https:///nowhere",
        "not a url",
    ],
)
async def test_an_address_that_is_private_or_plain_is_refused(url: str) -> None:
    async with Web() as web:
        assert web.fault(url)


async def test_a_robot_is_only_asked_at_its_providers_host() -> None:
    async with open_channels(Settings()) as channels:
        wecom = channels["wecom"]
        good = "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k"
        assert wecom.fault(Contact(good)) is None
        assert wecom.fault(Contact("https://qyapi.weixin.qq.com.evil.example/send?key=k"))


async def test_every_channel_that_needs_settings_says_which() -> None:
    contact = Contact("13800138000")
    async with open_channels(Settings()) as channels:
        faults = {name: one.fault(contact) or "" for name, one in channels.items()}
    needing = {name for name, fault in faults.items() if fault.startswith("Set ANXIN_")}
    assert needing == {"wechat", "aliyun_sms", "tencent_sms", "voice", "web_push", "email"}


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("13800138000", "+8613800138000"),
        ("138-0013 8000", "+8613800138000"),
        ("+44 20 7946 0000", "+442079460000"),
        ("02349876543", "+862349876543"),
        ("12345", None),
        ("+0123456789", None),
        ("", None),
    ],
)
def test_numbers_are_understood_as_people_write_them(given: str, plain: str | None) -> None:
    assert plain_number(given) == plain


def test_a_text_is_cut_between_characters() -> None:
    assert cut("安心", 5) == "安"
    assert cut("安心", 6) == "安心"
