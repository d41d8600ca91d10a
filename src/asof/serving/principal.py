"""Who asks, and what they may: a name and scopes, whatever they came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from asof.errors import AccessError, DefinitionError, did_you_mean
from asof.features.feature_set import NAME

READ = "read:"
READ_ALL = "read:*"
WRITE = "write"
ADMIN = "admin"
"""May all that there is to."""

_SCOPE = re.compile(rf"read:(\*|{NAME.pattern})|write|admin")


@dataclass(frozen=True)
class Principal:
    """Who asks. `prefix` is that of the key that was brought, to be shown in logs and lists."""

    name: str
    scopes: frozenset[str] = frozenset()
    prefix: str | None = None

    def may_read(self, version: str) -> bool:
        """Whether vectors of a feature set may be read."""
        return not self.scopes.isdisjoint((READ_ALL, ADMIN)) or READ + version in self.scopes

    def may(self, need: str) -> bool:
        """Whether a route may be called that needs `read` (of some feature set: which, the route looks at), `write` or `admin`."""
        if ADMIN in self.scopes:
            return True
        return any(scope.startswith(READ) for scope in self.scopes) if need == "read" else need in self.scopes

    def read(self, version: str) -> None:
        """Raise `AccessError` where vectors of a feature set may not be read, whether the set is there or not."""
        if not self.may_read(version):
            raise AccessError(f"this key may not read {version:.80}: it needs the scope read:{version:.80}")


def scope(text: str) -> str:
    """A scope as it was given. Raises `DefinitionError` for what is none."""
    if not _SCOPE.fullmatch(text):
        near = did_you_mean(text, [READ_ALL, WRITE, ADMIN])
        raise DefinitionError(f"scope {text!r} is not one of read:<feature set>, read:*, write, admin{near}")
    return text


def scopes_among(words: Iterable[str]) -> frozenset[str]:
    """Those that are scopes here, of words that may have another meaning elsewhere."""
    return frozenset(word for word in words if _SCOPE.fullmatch(word))
