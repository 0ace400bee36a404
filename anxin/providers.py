"""The providers of identities that an operator has set, by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpx
import msgspec

from anxin.config import Settings
from anxin.errors import NotFound, SettingError
from anxin.oidc import OpenId, OpenIdSetting
from anxin.signin import SECONDS, Provider, check_url
from anxin.wecom import WeCom, WeComSetting

_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LONGEST_NAME: Final = 32
Setting = OpenIdSetting | WeComSetting


@dataclass(frozen=True, slots=True)
class Offer:
    """One provider, and what its button says."""

    name: str
    zh: str
    en: str
    provider: Provider


class Providers:
    """Every provider that is set: an async context manager around their one client."""

    def __init__(self, settings: Settings) -> None:
        """Read the settings; raise SettingError. Nothing is fetched."""
        # No proxy and no .netrc from the environment: secrets go where the setting says.
        self._client = httpx.AsyncClient(
            timeout=SECONDS, trust_env=False, follow_redirects=False, http2=False
        )
        self._offers = {
            one.name: Offer(one.name, one.zh, one.en, _made(one, self._client))
            for one in read_providers(settings.oidc)
        }
        self.public_url = settings.public_url.rstrip("/")
        if self._offers:
            if not self.public_url:
                raise SettingError(
                    "ANXIN_OIDC needs ANXIN_PUBLIC_URL: the address to which providers send back."
                )
            check_url(self.public_url, "ANXIN_PUBLIC_URL")
        if len({one.provider.issuer for one in self}) < len(self._offers):
            raise SettingError("ANXIN_OIDC names an issuer twice; each is one provider.")

    async def __aenter__(self) -> Self:
        """Open."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """Close every connection."""
        await self._client.__aexit__(kind, error, trace)

    def __iter__(self) -> Iterator[Offer]:
        """Yield every provider, in the order of the setting."""
        return iter(self._offers.values())

    def __getitem__(self, name: str) -> Offer:
        """Return a provider; raise NotFound."""
        if name not in self._offers:
            raise NotFound("There is no such sign-in service.")
        return self._offers[name]


def read_providers(text: str) -> list[Setting]:
    """Return the providers of the setting ANXIN_OIDC, a JSON list; raise SettingError."""
    if not text.strip():
        return []
    try:
        entries = msgspec.json.decode(text, type=list[dict[str, msgspec.Raw]])
        found = [
            msgspec.convert(
                {"kind": "oidc"} | {k: msgspec.json.decode(v) for k, v in one.items()}, Setting
            )
            for one in entries
        ]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        # The message names a place, never what stands there.
        raise SettingError(f"ANXIN_OIDC cannot be read: {error}.") from error
    names = [one.name for one in found]
    for one in found:
        if not one.name or len(one.name) > _LONGEST_NAME or set(one.name) - _NAME:
            raise SettingError("A name in ANXIN_OIDC is 1 to 32 of a to z, 0 to 9 and hyphens.")
        if not one.zh or not one.en:
            raise SettingError(f"{one.name} in ANXIN_OIDC needs words for its button: zh and en.")
    if len(set(names)) < len(names):
        raise SettingError("Two providers in ANXIN_OIDC have the same name.")
    return found


def _made(setting: Setting, client: httpx.AsyncClient) -> Provider:
    if isinstance(setting, WeComSetting):
        return WeCom(setting, client)
    return OpenId(setting, client)
