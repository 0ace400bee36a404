"""WeCom 企业微信 as a provider of identities.

It does not speak OpenID Connect: no discovery, no signed token, no nonce, no PKCE. A person scans a
code, or opens the page inside WeCom; the code that comes back is redeemed with a token of the
enterprise's application for the id of the member. What protects it is the state, bound to the
browser, and that a code can be redeemed once, within five minutes, by who has the secret.

Endpoints: developer.work.weixin.qq.com/document/path/98152 (page), 91023 (who), 91039 (token).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec

from anxin.logs import log
from anxin.signin import Attempt, ProviderAway, SignInRefused, Subject, ask, check_url

_TOKEN_GONE: Final = frozenset({40014, 42001})
"""Codes of WeCom: a token is invalid, or has run out."""
_BAD_CODE: Final = frozenset({40029, 42003, 41008})
_MARGIN: Final = timedelta(minutes=5)
_INSIDE: Final = "wxwork"
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_log = log(__name__)


class WeComSetting(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="wecom",
    forbid_unknown_fields=True,
):  # fmt: skip
    """An application of an enterprise at WeCom, as an operator sets it."""

    name: str
    zh: str = "企业微信"
    en: str = "WeCom"
    corp_id: str
    agent_id: str
    secret: str
    api: str = "https://qyapi.weixin.qq.com"
    pages: str = "https://login.work.weixin.qq.com"


class WeCom:
    """One such application."""

    method: Final = "wecom"
    confirms: Final = False
    """It offers no way to ask that a person shows itself anew."""

    def __init__(self, setting: WeComSetting, client: httpx.AsyncClient) -> None:
        """Prepare; nothing is fetched before the first login."""
        check_url(setting.api, f"The api of {setting.name}")
        check_url(setting.pages, f"The pages of {setting.name}")
        self._setting = setting
        self._client = client
        self._token = ""
        self._token_until = _NEVER

    @property
    def issuer(self) -> str:
        """The enterprise: ids of members are its own."""
        return f"wecom:{self._setting.corp_id}"

    def subject(self, text: str) -> str:
        """Return it in small letters: to WeCom the case of an id is all the same."""
        return text.lower()

    async def address(self, attempt: Attempt, now: datetime) -> str:  # noqa: ARG002  # every provider's form
        """Return the page where the person scans, or inside WeCom the one that needs no scan."""
        setting = self._setting
        if _INSIDE in attempt.browser.lower():
            asked = {
                "appid": setting.corp_id,
                "redirect_uri": attempt.redirect_uri,
                "response_type": "code",
                "scope": "snsapi_base",
                "state": attempt.state,
                "agentid": setting.agent_id,
            }
            page = "https://open.weixin.qq.com/connect/oauth2/authorize"
            return f"{page}?{urlencode(asked)}#wechat_redirect"
        asked = {
            "login_type": "CorpApp",
            "appid": setting.corp_id,
            "agentid": setting.agent_id,
            "redirect_uri": attempt.redirect_uri,
            "state": attempt.state,
        }
        return f"{setting.pages}/wwlogin/sso/login?{urlencode(asked)}"

    async def identify(self, attempt: Attempt, answer: Mapping[str, str], now: datetime) -> Subject:
        """Return the member who came back; raise SignInRefused, ProviderAway."""
        code = answer.get("code", "")
        if attempt.fresh or not 0 < len(code) <= 512:
            # Without a code the person has refused.
            raise self._refusal("no_code")
        said = await self._who(code, now)
        if said.get("errcode") in _TOKEN_GONE:
            self._token_until = _NEVER
            said = await self._who(code, now)
        if said.get("errcode") in _BAD_CODE:
            raise self._refusal("code_not_accepted")
        if said.get("errcode", 0) != 0:
            raise self._away(said)
        member = said.get("userid") or said.get("UserId")
        if not isinstance(member, str) or not 0 < len(member) <= 64 or "\0" in member:
            # An outsider has an openid instead.
            raise self._refusal("no_member")
        return Subject(self.issuer, self.subject(member))

    async def fault(self, now: datetime) -> str:
        """Return '' when WeCom takes the secret of the application; raise ProviderAway."""
        self._token_until = _NEVER
        await self._access_token(now)
        return ""

    async def _who(self, code: str, now: datetime) -> dict[str, Any]:
        query = urlencode({"access_token": await self._access_token(now), "code": code})
        url = f"{self._setting.api}/cgi-bin/auth/getuserinfo?{query}"
        return (await ask(self._client, "GET", url))[1]

    async def _access_token(self, now: datetime) -> str:
        if now >= self._token_until:
            query = urlencode({"corpid": self._setting.corp_id, "corpsecret": self._setting.secret})
            _, said = await ask(
                self._client, "GET", f"{self._setting.api}/cgi-bin/gettoken?{query}"
            )
            token, lasts = said.get("access_token"), said.get("expires_in")
            if said.get("errcode", 0) != 0 or not isinstance(token, str) or not token:
                raise self._away(said)
            seconds = lasts if isinstance(lasts, int) and 0 < lasts <= 86_400 else 0
            self._token = token
            self._token_until = now + timedelta(seconds=seconds) - _MARGIN
        return self._token

    def _refusal(self, reason: str) -> SignInRefused:
        _log.info("sign_in_refused", provider=self._setting.name, reason=reason)
        return SignInRefused()

    def _away(self, said: dict[str, Any]) -> ProviderAway:
        code = said.get("errcode")
        _log.warning(
            "sign_in_provider_odd",
            provider=self._setting.name,
            code=code if isinstance(code, int) else None,
        )
        return ProviderAway()
