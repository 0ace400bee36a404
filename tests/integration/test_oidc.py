"""A login by OpenID Connect against a provider over real HTTP; what is wrong in it is refused."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from anxin.errors import SettingError
from anxin.oidc import OpenId, OpenIdSetting
from anxin.providers import read_providers
from anxin.signin import Attempt, ProviderAway, SignInRefused
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider, serving

BACK = "https://care.example.cn/api/v1/auth/providers/hospital/callback"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with serving() as one:
        yield one


@asynccontextmanager
async def known(provider: IdentityProvider, **changes: Any) -> AsyncIterator[OpenId]:
    values = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET} | changes
    setting = OpenIdSetting(
        name="hospital", zh="医院", en="Hospital", issuer=provider.issuer, **values
    )
    async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
        yield OpenId(setting, client)


def attempt(**changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "state": "s" * 43, "nonce": "n" * 43, "verifier": "v" * 64, "redirect_uri": BACK,
        "began_at": datetime.now(UTC),
    }  # fmt: skip
    return Attempt(**values | changes)


async def there_and_back(one: OpenId, going: Attempt, provider: IdentityProvider) -> dict[str, str]:
    """Do what a browser does: go there, and return what it brings back."""
    address = urlsplit(await one.address(going, datetime.now(UTC)))
    sent = {name: values[0] for name, values in parse_qs(address.query).items()}
    back = urlsplit(provider.authorize(sent))
    return {name: values[0] for name, values in parse_qs(back.query).items()}


async def identify(provider: IdentityProvider, **changes: Any) -> str:
    async with known(provider) as one:
        going = attempt(**changes)
        answer = await there_and_back(one, going, provider)
        return (await one.identify(going, answer, datetime.now(UTC))).subject


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_somebody_comes_back_with_a_signed_token_and_is_known_by_its_subject(
    algorithm: str,
) -> None:
    with serving(algorithm=algorithm) as provider:
        assert await identify(provider) == "subject-1"
        (asked,) = provider.authorized
        assert asked["redirect_uri"] == BACK
        assert len(asked["code_challenge"]) == 43


LIES: dict[str, dict[str, Any]] = {
    "nonce of another login": {"claims": {"nonce": "x" * 43}},
    "no nonce": {"claims": {"nonce": None}},
    "for another client": {"claims": {"aud": "somebody-else"}},
    "for several, and not said for whom": {"claims": {"aud": [CLIENT_ID, "somebody-else"]}},
    "for several, authorized another": {
        "claims": {"aud": [CLIENT_ID, "somebody-else"], "azp": "somebody-else"}
    },
    "for another, authorized us": {"claims": {"aud": "somebody-else", "azp": CLIENT_ID}},
    "no audience": {"claims": {"aud": None}},
    "of another issuer": {"claims": {"iss": "https://evil.example"}},
    "no issuer": {"claims": {"iss": None}},
    "run out": {"claims": {"exp": int(time.time()) - 3600}},
    "never running out": {"claims": {"exp": None}},
    "not a number as end": {"claims": {"exp": "tomorrow"}},
    "from the future": {"claims": {"iat": int(time.time()) + 3600}},
    "no subject": {"claims": {"sub": None}},
    "an empty subject": {"claims": {"sub": ""}},
    "a subject that is no text": {"claims": {"sub": 7}},
    "a subject without end": {"claims": {"sub": "s" * 300}},
    "shown in the future": {"claims": {"auth_time": time.time() + 3600}},
    "not signed": {"algorithm": "none"},
    "signed with the client's secret": {"algorithm": "HS256"},
    "signed with the public key as a secret": {"algorithm": "HS512"},
    "signed with a key nobody published": {"sign_with_unpublished": True},
    "no token at all": {"token": "gibberish"},
    "a token of five parts": {"token": "a.b.c.d.e"},
    "issuer of the answer is another": {"answer": {"iss": "https://evil.example"}},
    "issuer of the answer is missing": {"answer": {"iss": None}},
    "no code": {"answer": {"code": None}},
    "a made up code": {"answer": {"code": "guess"}},
    "refused there": {"answer": {"error": "access_denied"}},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_token_or_answer_that_is_not_right_in_every_point_is_refused(
    provider: IdentityProvider, lie: str
) -> None:
    for name, value in LIES[lie].items():
        setattr(provider.lies, name, value)
    with pytest.raises(SignInRefused):
        await identify(provider)


async def test_several_audiences_are_taken_when_this_client_is_the_authorized_one(
    provider: IdentityProvider,
) -> None:
    provider.lies.claims = {"aud": [CLIENT_ID, "somebody-else"], "azp": CLIENT_ID}
    assert await identify(provider) == "subject-1"


async def test_a_code_is_good_once_and_only_with_the_verifier_of_its_attempt(
    provider: IdentityProvider,
) -> None:
    async with known(provider) as one:
        going = attempt()
        answer = await there_and_back(one, going, provider)
        with pytest.raises(SignInRefused):  # stolen: whoever has it did not ask for it
            await one.identify(attempt(verifier="w" * 64), answer, datetime.now(UTC))
        answer = await there_and_back(one, going, provider)
        await one.identify(going, answer, datetime.now(UTC))
        with pytest.raises(SignInRefused):
            await one.identify(going, answer, datetime.now(UTC))


async def again(one: OpenId, provider: IdentityProvider, after: timedelta) -> str:
    """Log in once more, after some time; tokens are good for hours here."""
    provider.lies.claims = {"exp": int(time.time()) + 7200}
    going = attempt()
    answer = await there_and_back(one, going, provider)
    return (await one.identify(going, answer, datetime.now(UTC) + after)).subject


async def test_keys_are_kept_and_a_new_one_is_fetched_when_a_token_names_it(
    provider: IdentityProvider,
) -> None:
    async with known(provider) as one:
        for second in range(3):
            assert await again(one, provider, timedelta(seconds=second)) == "subject-1"
        assert provider.asked.count("/keys") == 1
        provider.rotate()
        assert await again(one, provider, timedelta(seconds=3)) == "subject-1"
        assert provider.asked.count("/keys") == 2


async def test_tokens_with_unknown_keys_do_not_make_it_ask_each_time(
    provider: IdentityProvider,
) -> None:
    async with known(provider) as one:
        await again(one, provider, timedelta())
        provider.lies.key_id = "made up"
        for second in range(1, 6):
            with pytest.raises(SignInRefused):
                await again(one, provider, timedelta(seconds=second))
        assert provider.asked.count("/keys") == 2
        with pytest.raises(SignInRefused):
            await again(one, provider, timedelta(seconds=20))
        assert provider.asked.count("/keys") == 3


async def test_a_key_that_is_no_longer_published_is_forgotten_within_ten_minutes(
    provider: IdentityProvider,
) -> None:
    async with known(provider) as one:
        await again(one, provider, timedelta())
        provider.signs_with = provider.keys[-1]
        provider.rotate(keep=False)
        assert await again(one, provider, timedelta(seconds=5)) == "subject-1"
        with pytest.raises(SignInRefused):
            await again(one, provider, timedelta(minutes=11))


async def test_who_must_show_itself_anew_is_asked_to_and_an_old_proof_is_refused(
    provider: IdentityProvider,
) -> None:
    assert await identify(provider, fresh=True) == "subject-1"
    assert (provider.authorized[-1]["prompt"], provider.authorized[-1]["max_age"]) == ("login", "0")
    provider.authenticated_at = time.time() - 600
    with pytest.raises(SignInRefused):
        await identify(provider, fresh=True)
    provider.lies.claims = {"auth_time": None}
    with pytest.raises(SignInRefused):
        await identify(provider, fresh=True)
    assert await identify(provider) == "subject-1"


ODD: dict[str, dict[str, Any]] = {
    "it is down": {"status": 503},
    "it hides behind a redirect": {"status": 302},
    "it says that it is another": {"metadata": {"issuer": "https://evil.example"}},
    "it has no place to log in": {"metadata": {"authorization_endpoint": None}},
    "it would take the secret in the clear": {
        "metadata": {"token_endpoint": "http://evil.example/token"}
    },
    "it would break our headers": {
        "metadata": {"authorization_endpoint": "https://evil.example/\r\nset-cookie: a=b"}
    },
}  # fmt: skip


@pytest.mark.parametrize("oddity", ODD)
async def test_a_provider_that_does_not_answer_as_it_should_is_away(
    provider: IdentityProvider, oddity: str
) -> None:
    for name, value in ODD[oddity].items():
        setattr(provider.lies, name, value)
    async with known(provider) as one:
        with pytest.raises(ProviderAway):
            await one.address(attempt(), datetime.now(UTC))


async def test_who_waits_behind_a_provider_that_is_down_is_told_at_once(
    provider: IdentityProvider,
) -> None:
    provider.lies.status = 503
    async with known(provider) as one:
        now = datetime.now(UTC)
        for _ in range(5):
            with pytest.raises(ProviderAway):
                await one.address(attempt(), now)
        assert len(provider.asked) == 1
        provider.lies.status = None
        assert await one.address(attempt(), now + timedelta(seconds=6))


async def test_a_wrong_secret_of_ours_is_no_fault_of_the_person(provider: IdentityProvider) -> None:
    async with known(provider, client_secret="wrong") as one:
        going = attempt()
        answer = await there_and_back(one, going, provider)
        with pytest.raises(ProviderAway):
            await one.identify(going, answer, datetime.now(UTC))


GOOD = {"name": "hospital", "zh": "医院", "en": "Hospital", "issuer": "https://id.example.cn",
        "client_id": "anxin"}  # fmt: skip
WRONG: list[tuple[Any, str]] = [
    ({}, "cannot be read"),
    ([1], "cannot be read"),
    ([{**GOOD, "unknown": 1}], "unknown"),
    ([{**GOOD, "kind": "saml"}], "saml"),
    ([{**GOOD, "name": "Hospital Nord"}], "1 to 32"),
    ([{**GOOD, "zh": ""}], "words"),
    ([GOOD, GOOD], "same name"),
]


@pytest.mark.parametrize(("value", "said"), WRONG)
def test_a_setting_that_cannot_be_meant_is_told_in_words(value: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        read_providers(json.dumps(value))


@pytest.mark.parametrize("issuer", ["http://id.example.cn", "id.example.cn", "https://a:b@id.cn",
                                    "https://id.cn?x", ""])  # fmt: skip
async def test_an_issuer_without_tls_is_refused(issuer: str) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(SettingError, match="issuer"):
            OpenId(OpenIdSetting(**{**GOOD, "issuer": issuer}), client)
