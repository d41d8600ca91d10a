"""Tokens of an OIDC issuer: who brings one, once its signature, issuer, audience and times are checked.

1. The issuer's keys come from its discovery document, and are kept. They are fetched again when they are old, and when a token names one
   that is not among them, but not more often than every `PAUSE_SECONDS`, whatever tokens come.
2. A token is signed by one of `ALGORITHMS`, with a key made for it: never with none, nor with a secret that is shared.
3. Where the issuer cannot be reached its keys hold for another hour; then no token can be checked, which is an `IssuerError`.
4. A token that was right is remembered for a minute, and not longer than it lasts.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

from asof.config import ConfigError
from asof.errors import IssuerError, Unauthenticated
from asof.serving.loopback import is_loopback
from asof.serving.principal import Principal, scopes_among

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""By the kind of a key, what it may sign with."""
ALLOWED = tuple(name for names in ALGORITHMS.values() for name in names)
LEEWAY_SECONDS = 30
"""That the issuer's clock and ours may differ by."""
MOST_BYTES = 8192
"""Of a token."""
MOST_DOCUMENT = 1 << 20
FETCH_SECONDS = 5.0
FRESH_SECONDS = 600.0
STALE_SECONDS = 3600.0
PAUSE_SECONDS = 10.0
REMEMBERED_SECONDS = 60.0
MOST_REMEMBERED = 4096
MOST_NAME = 200

DISCOVERY = "/.well-known/openid-configuration"
WRONG = "this token cannot be used here"

WHY: Mapping[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "it is expired: ask the issuer for another",
    jwt.ImmatureSignatureError: "it is not valid yet: do the clocks differ?",
    jwt.InvalidIssuerError: "it is of another issuer",
    jwt.InvalidAudienceError: "it is for another audience",
    jwt.MissingRequiredClaimError: "it lacks one of the claims exp, iss, aud and sub",
    jwt.InvalidSignatureError: "its signature is not of its issuer's keys",
}
"""What is said of a token; of other faults, that it is malformed."""

Fetch = Callable[[str], Any]
"""The JSON at an address. Raises `OSError` or `ValueError`."""

log = logging.getLogger(__name__)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """An issuer answers where it says it is."""


_opener = build_opener(_NoRedirects)


def fetch(url: str) -> Any:  # noqa: ANN401  # JSON has no types
    """The JSON at an address, of bounded size, within bounded time."""
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "asof"})  # noqa: S310  # `checked` has seen its scheme
    last, body = time.monotonic() + FETCH_SECONDS, b""
    with _opener.open(request, timeout=FETCH_SECONDS) as response:
        while part := response.read1(1 << 16):
            body += part
            if len(body) > MOST_DOCUMENT:
                raise ValueError(f"{url} is larger than {MOST_DOCUMENT} bytes")
            if time.monotonic() > last:
                raise TimeoutError(f"{url} takes longer than {FETCH_SECONDS:g} seconds")
    return json.loads(body)


def checked(url: str, what: str) -> str:
    """An address over TLS, or of this machine. Raises `ConfigError` for others: whoever is in between could make keys of their own."""
    parts = urlsplit(url)
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
        return url
    raise ConfigError(f"{what} {url!r} has to be an https:// address")


class Signing(NamedTuple):
    """A public key of an issuer, and what it may sign with."""

    kid: str | None
    algorithms: tuple[str, ...]
    key: Any


@dataclass
class Issuer:
    """The keys of an issuer, kept and fetched again. Any threads ask."""

    url: str
    fetch: Fetch = fetch
    clock: Callable[[], float] = time.monotonic
    _keys: tuple[Signing, ...] = ()
    _fetched: float | None = None
    _tried: float | None = None
    _failed: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def key(self, kid: object, algorithm: str) -> Signing | None:
        """The key that a token names and that may sign so; the only such one where it names none. Raises `IssuerError`."""
        found = self._find(kid, algorithm)
        if found is not None and self._younger(FRESH_SECONDS):
            return found
        if self._lock.acquire(blocking=found is None or not self._younger(STALE_SECONDS)):
            try:
                self._refresh()
            finally:
                self._lock.release()
        if not self._younger(STALE_SECONDS) or (self._failed and self._find(kid, algorithm) is None):
            raise IssuerError(f"the issuer {self.url} cannot be asked for its keys now: {self._failed}; try again in a moment")
        return self._find(kid, algorithm)

    def _younger(self, seconds: float) -> bool:
        return self._fetched is not None and self.clock() - self._fetched < seconds

    def _find(self, kid: object, algorithm: str) -> Signing | None:
        fitting = [key for key in self._keys if kid in (None, key.kid) and algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    def _refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago."""
        if self._tried is not None and self.clock() - self._tried < PAUSE_SECONDS:
            return
        try:
            self._keys = self._fetch()
            self._failed, self._fetched = None, self.clock()
        except (OSError, ValueError, ConfigError) as error:
            self._failed = str(error.reason if isinstance(error, URLError) else error)[:200]
            log.error("the issuer's keys cannot be fetched", extra={"issuer": self.url, "error": self._failed})  # noqa: TRY400  # it says all
        self._tried = self.clock()

    def _fetch(self) -> tuple[Signing, ...]:
        about = self.fetch(self.url.rstrip("/") + DISCOVERY)
        if not isinstance(about, dict) or about.get("issuer") != self.url:
            said = about.get("issuer") if isinstance(about, dict) else about
            raise ValueError(f"its discovery document is of {said!r:.100}: ASOF_OIDC_ISSUER has to be written just so")
        document = self.fetch(checked(str(about.get("jwks_uri")), "jwks_uri"))
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("its JWKS has no list of keys")
        keys = tuple(key for one in listed if (key := _usable(one)) is not None)
        if not keys:
            raise ValueError(f"its JWKS has no key for {', '.join(ALLOWED)}")
        return keys


def _usable(listed: object) -> Signing | None:
    """A public key for signatures; None for another, such as one to encrypt with, or a secret."""
    if not isinstance(listed, dict) or listed.get("kty") not in ALGORITHMS or listed.get("use", "sig") != "sig":
        return None
    allowed = tuple(name for name in ALGORITHMS[listed["kty"]] if listed.get("alg", name) == name)
    try:
        key = jwt.PyJWK({name: value for name, value in listed.items() if name not in ("alg", "d", "p", "q")})
    except jwt.PyJWTError:
        return None
    return Signing(key.key_id, allowed, key.key)


class Tokens:
    """Who brings a token of an issuer, made for an audience."""

    def __init__(self, issuer: Issuer, audience: str) -> None:
        self._issuer = issuer
        self._audience = audience
        self._remembered: dict[bytes, tuple[Principal, float, float]] = {}

    def remembered(self, token: str) -> Principal | None:
        """Who brings a token that was right a moment ago, without a look at anything but the clock."""
        found = self._remembered.get(_digest(token))
        if found is None:
            return None
        principal, expires, until = found
        return principal if time.time() < expires and self._issuer.clock() < until else None

    def authenticate(self, token: str) -> Principal:
        """Who brings a token. Raises `Unauthenticated`, and `IssuerError` where it cannot be checked now."""
        if (found := self.remembered(token)) is not None:
            return found
        claims = self._claims(token)
        principal = _principal(claims)
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[_digest(token)] = principal, float(claims["exp"]), self._issuer.clock() + REMEMBERED_SECONDS
        return principal

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MOST_BYTES:
            raise Unauthenticated(f"{WRONG}: it is longer than {MOST_BYTES} bytes")
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in ALLOWED or "crit" in header:
                raise Unauthenticated(f"{WRONG}: it has to be signed with one of {', '.join(ALLOWED)}, and without extensions")
            key = self._issuer.key(header.get("kid"), algorithm)
            if key is None:
                raise Unauthenticated(f"{WRONG}: its issuer has no such key for {algorithm}")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                [algorithm],
                audience=self._audience,
                issuer=self._issuer.url,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            why = next((said for kind, said in WHY.items() if isinstance(error, kind)), "it is malformed")
            raise Unauthenticated(f"{WRONG}: {why}") from None
        except (ValueError, TypeError, RecursionError, OverflowError):
            raise Unauthenticated(f"{WRONG}: it is malformed") from None
        return claims


def _principal(claims: Mapping[str, Any]) -> Principal:
    """Who a token is about. Scopes are in `scope`, a text with spaces; some issuers have a list, or call it `scp`."""
    given = claims.get("scope", claims.get("scp", ""))
    words = (
        given.split() if isinstance(given, str) else [word for word in given if isinstance(word, str)] if isinstance(given, list) else []
    )
    name = "".join(letter if letter.isprintable() else "?" for letter in claims["sub"][:MOST_NAME])
    return Principal(name, scopes_among(words))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
