"""What the doctor says of the providers of identities."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from anxin.config import Settings
from anxin.doctor import CHECKS, Verdict
from anxin.errors import SettingError
from tests.identity_provider import CLIENT_ID, IdentityProvider, serving
from tests.integration.test_wecom import SECRET
from tests.integration.test_wecom import serving as serving_wecom

PUBLIC = "https://care.example.cn"


def said(*providers: dict[str, Any], **settings: Any) -> list[tuple[Verdict, str]]:
    options = Settings(**{"oidc": json.dumps(providers), "public_url": PUBLIC,
                          "cookie_secure": True, **settings})  # fmt: skip
    return list(dict(CHECKS)["sign-in"](options))


def hospital(provider: IdentityProvider) -> dict[str, str]:
    return {"name": "hospital", "zh": "医院", "en": "Hospital", "issuer": provider.issuer,
            "client_id": CLIENT_ID}  # fmt: skip


def test_without_providers_it_is_a_note_and_with_one_that_answers_all_is_well() -> None:
    assert [verdict for verdict, _ in said()] == [Verdict.NOTE]
    with serving() as provider:
        assert said(hospital(provider)) == [(Verdict.GOOD, "hospital answers as it should")]
        (_, note) = said(hospital(provider), cookie_secure=False)
        assert note[0] is Verdict.NOTE
        assert "ANXIN_COOKIE_SECURE" in note[1]


def test_a_provider_that_is_down_or_publishes_no_key_is_a_fault() -> None:
    with serving() as provider:
        provider.keys = []
        ((verdict, text),) = said(hospital(provider))
        assert verdict is Verdict.FAULT
        assert "no key" in text
        provider.lies.status = 503
        ((verdict, text),) = said(hospital(provider))
        assert verdict is Verdict.FAULT
        assert "does not answer" in text
        assert "passwords" in text


@pytest.mark.parametrize(("ahead", "word"), [(timedelta(minutes=5), "ahead"),
                                             (timedelta(minutes=-5), "behind")])  # fmt: skip
def test_a_clock_that_is_so_wrong_that_tokens_are_refused_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, ahead: timedelta, word: str
) -> None:
    def date(*_: object) -> str:
        return format_datetime(datetime.now(UTC) + ahead, usegmt=True)

    monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", date)
    with serving() as provider:
        ((verdict, text),) = said(hospital(provider))
    assert verdict is Verdict.FAULT
    assert f"s {word}" in text


def test_a_secret_that_wecom_does_not_take_is_a_fault() -> None:
    with serving_wecom() as enterprise:
        one = {"kind": "wecom", "name": "wecom", "corp_id": "ww1", "agent_id": "1",
               "api": enterprise.address}  # fmt: skip
        assert said({**one, "secret": SECRET})[0][0] is Verdict.GOOD
        assert said({**one, "secret": "wrong"})[0][0] is Verdict.FAULT


def test_providers_need_the_address_to_which_they_send_back() -> None:
    with serving() as provider, pytest.raises(SettingError, match="ANXIN_PUBLIC_URL"):
        said(hospital(provider), public_url="")
    with serving() as provider, pytest.raises(SettingError, match="https"):
        said(hospital(provider), public_url="http://care.example.cn")
