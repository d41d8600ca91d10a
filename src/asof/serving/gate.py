"""Who asks, told by keys and tokens; and when a service needs neither."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asof.config import ConfigError, Settings
from asof.errors import AccessError, MissingExtra, Unauthenticated
from asof.serving.keys import FILE, KeyFile
from asof.serving.loopback import is_loopback
from asof.serving.principal import READ_ALL, Principal

if TYPE_CHECKING:
    from asof.serving.oidc import Tokens

EVERYBODY = Principal("everybody", frozenset({READ_ALL}))
"""Who asks an open service."""
NOBODY = Principal("nobody")
"""Who asks a public route: a handler that nevertheless looks at who asks lets nothing be read."""
MAKE_ONE = "asof keys create NAME --scope read:fs_v1"


class Gate:
    """Who asks, by keys and tokens; `alone` where the service is reached by its own machine only and nothing is set up to tell who asks."""

    def __init__(self, keys: KeyFile, tokens: Tokens | None = None, alone: bool = False) -> None:
        self._keys = keys
        self._tokens = tokens
        self._alone = alone

    @classmethod
    def of(cls, settings: Settings, host: str) -> Gate:
        """That of a service bound to a host. Raises `ConfigError` or `MissingExtra` for settings that cannot be used."""
        tokens = _tokens(settings)
        alone = is_loopback(host) and tokens is None and settings.keys_file is None
        return cls(KeyFile(settings.keys_file or Path(FILE)), tokens, alone)

    @property
    def open(self) -> bool:
        """Whether everybody is let in. From the first key on this is over for good."""
        if self._alone and self.guarded:
            self._alone = False
        return self._alone

    @property
    def guarded(self) -> bool:
        """Whether there is anything to tell who asks. A file of keys that cannot be read is: it lets nobody in."""
        try:
            return self._tokens is not None or bool(self._keys.keys())
        except ConfigError:
            return True

    def check(self, host: str) -> None:
        """Raise `ConfigError` where a service would be reached by others and could let nobody in."""
        self._keys.keys()
        if not self.guarded and not self.open:
            where = f"it listens at {host}, where others reach it" if not is_loopback(host) else "ASOF_KEYS_FILE is set"
            mend = f"make a key ({MAKE_ONE}), or name an issuer with ASOF_OIDC_ISSUER"
            raise ConfigError(f"nobody could be let in: {where}, and there are no keys; {mend}")

    def authenticate(self, authorization: str | None) -> Principal:
        """Who asks, by the header `authorization`. May wait for the issuer.

        Raises `Unauthenticated`; `AccessError` where nobody can be let in yet; `IssuerError` and `ConfigError` where it cannot be told now.
        """
        if self.open:
            return EVERYBODY
        if not self.guarded:
            raise AccessError(f"this service lets nobody in until there are keys: {MAKE_ONE}")
        token = _token(authorization)
        if _is_key(token) or self._tokens is None:
            return self._keys.authenticate(token)
        return self._tokens.authenticate(token)

    def is_quick(self, authorization: str | None) -> bool:
        """Whether `authenticate` answers at once: a signature to check or an issuer to ask takes a thread."""
        if authorization is None or self._tokens is None or _is_key(token := authorization.partition(" ")[2]):
            return True
        return "." not in token or self._tokens.remembered(token) is not None


def _tokens(settings: Settings) -> Tokens | None:
    if not settings.oidc_issuer and not settings.oidc_audience:
        return None
    if not settings.oidc_issuer or not settings.oidc_audience:
        missing = "ASOF_OIDC_AUDIENCE" if settings.oidc_issuer else "ASOF_OIDC_ISSUER"
        raise ConfigError(f"tokens need both an issuer and an audience: set {missing}, too")
    try:
        from asof.serving.oidc import Issuer, Tokens, checked  # noqa: PLC0415  # PyJWT is an extra
    except ImportError as error:
        raise MissingExtra(f'tokens of an issuer need PyJWT: pip install "asof[service]" ({error})') from None
    return Tokens(Issuer(checked(settings.oidc_issuer, "ASOF_OIDC_ISSUER")), settings.oidc_audience)


def _token(authorization: str | None) -> str:
    if authorization is None:
        raise Unauthenticated("this service asks for a key: send the header Authorization: Bearer <key> (asof keys create makes one)")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("the header Authorization has to be: Bearer <key>")
    return token


def _is_key(token: str) -> bool:
    return token.startswith("asof_")
