"""A provider of identities that speaks OpenID Connect: the authorization code flow with PKCE.

After OpenID Connect Core 1.0 and Discovery 1.0, RFC 7636 (PKCE), RFC 9207 (issuer in the answer)
and RFC 9700 (best practice). Requests and checks of claims are Authlib's, signatures joserfc's.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hmac import compare_digest
from typing import Any, Final

import httpx
import msgspec
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.client import OAuth2Client
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from anxin.errors import SettingError
from anxin.logs import log
from anxin.signin import Attempt, ProviderAway, SignInRefused, Subject, ask, check_url

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519",
    "EdDSA",
)  # fmt: skip
"""Only asymmetric ones: HS256 would sign with the client's secret, and `none` not at all."""
LEEWAY: Final = timedelta(seconds=60)
"""So far clocks may differ."""
METADATA_FOR: Final = timedelta(hours=1)
KEYS_FOR: Final = timedelta(minutes=10)
AGAIN_AFTER: Final = timedelta(seconds=10)
"""So often at most keys are fetched anew because a signature names an unknown one."""
REST: Final = timedelta(seconds=5)
"""So long after a failure nobody waits for the provider again."""
LONGEST: Final = 2048
_KEY_TYPES: Final = frozenset({"RSA", "EC", "OKP"})
_NEVER: Final = datetime.min.replace(tzinfo=UTC)

_log = log(__name__)


class OpenIdSetting(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="oidc",
    forbid_unknown_fields=True,
):  # fmt: skip
    """A provider that speaks OpenID Connect, as an operator sets it."""

    name: str
    zh: str
    en: str
    issuer: str
    client_id: str
    client_secret: str = ""
    scopes: str = "openid"


class _Metadata(msgspec.Struct, frozen=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


@dataclass(slots=True)
class _Kept:
    """What was fetched of a provider, and when."""

    metadata: _Metadata
    fetched_at: datetime
    keys: KeySet | None = None
    keys_at: datetime = _NEVER
    forced_at: datetime = _NEVER


class OpenId:
    """One such provider; `client` follows no redirects."""

    method: Final = "oidc"
    confirms: Final = True

    def __init__(self, setting: OpenIdSetting, client: httpx.AsyncClient) -> None:
        """Prepare; nothing is fetched before the first login."""
        check_url(setting.issuer, f"The issuer of {setting.name}")
        self._setting = setting
        self._client = client
        self._kept: _Kept | None = None
        self._fetching = asyncio.Lock()
        self._failed_at = _NEVER

    @property
    def issuer(self) -> str:
        """The issuer, as its tokens name it."""
        return self._setting.issuer

    def subject(self, text: str) -> str:
        """Return it as it is: subjects are exact."""
        return text

    async def address(self, attempt: Attempt, now: datetime) -> str:
        """Return the page of the provider where the person logs in; raise ProviderAway."""
        kept = await self._known(now)
        request = OAuth2Client(
            None,
            client_id=self._setting.client_id,
            scope=self._setting.scopes,
            redirect_uri=attempt.redirect_uri,
            code_challenge_method="S256",
        )
        anew = {"prompt": "login", "max_age": 0} if attempt.fresh else {}
        url, _ = request.create_authorization_url(
            kept.metadata.authorization_endpoint,
            state=attempt.state,
            nonce=attempt.nonce,
            code_verifier=attempt.verifier,
            **anew,
        )
        return str(url)

    async def identify(self, attempt: Attempt, answer: Mapping[str, str], now: datetime) -> Subject:
        """Redeem the code of an answer and read the ID token; raise SignInRefused, ProviderAway."""
        kept = await self._known(now)
        # First of all whose answer it is: a code goes to nobody but the provider that gave it.
        stated = answer.get("iss")
        must = kept.metadata.authorization_response_iss_parameter_supported
        if stated != self.issuer and (must or stated is not None):
            raise self._refusal("issuer_of_answer")
        if "error" in answer:
            raise self._refusal("refused_there")
        code = answer.get("code", "")
        if not 0 < len(code) <= LONGEST:
            raise self._refusal("no_code")
        id_token = await self._redeem(kept.metadata, attempt, code)
        claims = await self._read(kept, id_token, attempt, now)
        return self._subject(claims, attempt, now)

    async def fault(self, now: datetime) -> str:
        """Return what would keep people from logging in by it, or ''; raise ProviderAway."""
        kept = await self._known(now)
        keys = await self._keys(kept, now, anew=False)
        if not keys.keys:
            return "it publishes no key that a token could be checked with"
        try:
            answer = await self._client.get(kept.metadata.jwks_uri)
            ahead = parsedate_to_datetime(answer.headers.get("date", "")) - datetime.now(UTC)
        except (httpx.HTTPError, ValueError, TypeError):
            return ""  # it has answered before, and need not say what time it is
        if abs(ahead) <= LEEWAY:
            return ""
        seconds = abs(ahead).total_seconds()
        return (
            f"its clock is {seconds:.0f} s {'ahead of' if ahead > timedelta() else 'behind'} ours, "
            "so its tokens are refused: let both follow a time server (NTP)"
        )

    async def _known(self, now: datetime) -> _Kept:
        async with self._fetching:
            if self._kept is None or now - self._kept.fetched_at > METADATA_FOR:
                url = get_well_known_url(self.issuer, external=True)
                status, said = await self._fetch(url, now)
                try:
                    metadata = msgspec.convert(said, _Metadata)
                    for one in (
                        metadata.authorization_endpoint, metadata.token_endpoint,
                        metadata.jwks_uri,
                    ):  # fmt: skip
                        check_url(one.partition("?")[0], "An endpoint")
                except (msgspec.ValidationError, SettingError) as error:
                    raise self._away("metadata", status) from error
                if metadata.issuer != self.issuer:
                    raise self._away("issuer_of_metadata", status)
                self._kept = _Kept(metadata, now)
            return self._kept

    async def _redeem(self, metadata: _Metadata, attempt: Attempt, code: str) -> str:
        """Exchange a code for its ID token."""
        offered = metadata.token_endpoint_auth_methods_supported
        method = "none"
        if self._setting.client_secret:
            basic = "client_secret_basic" in offered or "client_secret_post" not in offered
            method = "client_secret_basic" if basic else "client_secret_post"
        url, headers, body = ClientAuth(
            self._setting.client_id, self._setting.client_secret, method
        ).prepare(
            "POST",
            metadata.token_endpoint,
            {"content-type": "application/x-www-form-urlencoded"},
            prepare_token_request(
                "authorization_code",
                code=code,
                redirect_uri=attempt.redirect_uri,
                code_verifier=attempt.verifier,
            ),
        )
        status, said = await ask(self._client, "POST", url, headers=headers, content=body)
        id_token = said.get("id_token")
        if status == httpx.codes.OK and isinstance(id_token, str):
            return id_token
        if said.get("error") in ("invalid_client", "unauthorized_client"):
            raise self._away("client_not_accepted", status)
        raise self._refusal("code_not_accepted")

    async def _read(
        self, kept: _Kept, id_token: str, attempt: Attempt, now: datetime
    ) -> dict[str, Any]:
        """Return the claims of an ID token that is signed and meant for this attempt."""
        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        try:
            try:
                keys = await self._keys(kept, now, anew=False)
                token = jwt.decode(id_token, keys, registry=registry)
            except InvalidKeyIdError:
                keys = await self._keys(kept, now, anew=True)
                token = jwt.decode(id_token, keys, registry=registry)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": self.issuer},
                    "aud": {"essential": True, "value": self._setting.client_id},
                    "nonce": {"essential": True},
                },
                {"nonce": attempt.nonce, "client_id": self._setting.client_id},
            )
            claims.validate(int(now.timestamp()), int(LEEWAY.total_seconds()))
        # What a provider sends is data: whatever is wrong with it, it is refused.
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._refusal(type(error).__name__) from error
        return dict(claims)

    async def _keys(self, kept: _Kept, now: datetime, *, anew: bool) -> KeySet:
        """Return the keys that the provider signs with, fetched anew at most every few seconds."""
        async with self._fetching:
            old = kept.keys is None or now - kept.keys_at > KEYS_FOR
            if anew and now - kept.forced_at > AGAIN_AFTER:
                kept.forced_at = now
                old = True
            if old or kept.keys is None:
                _, said = await self._fetch(kept.metadata.jwks_uri, now)
                kept.keys, kept.keys_at = _signing_keys(said), now
            return kept.keys

    async def _fetch(self, url: str, now: datetime) -> tuple[int, dict[str, Any]]:
        """Return what the provider says of itself; who waited while that failed fails as well."""
        if now - self._failed_at < REST:
            raise ProviderAway
        try:
            return await ask(self._client, "GET", url)
        except ProviderAway:
            self._failed_at = now
            raise

    def _subject(self, claims: dict[str, Any], attempt: Attempt, now: datetime) -> Subject:
        subject, shown = claims.get("sub"), claims.get("auth_time")
        if not isinstance(subject, str) or not 0 < len(subject) <= 255 or "\0" in subject:
            raise self._refusal("subject")
        # Authlib compares it as well; here without telling by time how much of it is right.
        if not compare_digest(str(claims.get("nonce")).encode(), attempt.nonce.encode()):
            raise self._refusal("nonce")
        shown_at = None
        if isinstance(shown, int | float):
            earliest, latest = attempt.began_at - LEEWAY, now + LEEWAY
            if shown > latest.timestamp():
                raise self._refusal("auth_time")
            if shown > 0:
                shown_at = datetime.fromtimestamp(shown, UTC)
            if attempt.fresh and shown < earliest.timestamp():
                raise self._refusal("not_shown_anew")
        elif attempt.fresh:
            raise self._refusal("not_shown_anew")
        return Subject(self.issuer, subject, shown_at)

    def _refusal(self, reason: str) -> SignInRefused:
        _log.info("sign_in_refused", provider=self._setting.name, reason=reason)
        return SignInRefused()

    def _away(self, reason: str, status: int) -> ProviderAway:
        _log.warning(
            "sign_in_provider_odd", provider=self._setting.name, reason=reason, status=status
        )
        return ProviderAway()


def _signing_keys(said: dict[str, Any]) -> KeySet:
    """Return the public keys of a key set that may sign; what cannot be read is left out."""
    keys = []
    offered = said.get("keys")
    for one in offered if isinstance(offered, list) else []:
        if (
            not isinstance(one, dict)
            or one.get("kty") not in _KEY_TYPES
            or one.get("use") not in (None, "sig")
        ):
            continue
        try:
            keys += KeySet.import_key_set({"keys": [one]}).keys
        except (JoseError, ValueError, TypeError, KeyError) as error:
            _log.warning("sign_in_key_unreadable", error=type(error).__name__)
    return KeySet(keys)
