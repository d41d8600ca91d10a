"""The table of routes as it is stated: what each needs, so that what is not stated is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from asof.errors import did_you_mean

PUBLIC = "public"
ANY = "any"
"""A route for all who are known, whatever their scopes."""


@dataclass(frozen=True)
class Route:
    """A route: `path` may have parts such as `{version}`; `need` is `public`, `any`, `read`, `write` or `admin`.

    The answer of a `lasting` one goes on for as long as the client likes.
    """

    path: str
    methods: frozenset[str] = frozenset({"GET"})
    need: str = "read"
    lasting: bool = False

    def answers(self, method: str) -> bool:
        """Whether it takes a method; GET takes HEAD, too."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)


class Routes:
    """The table of routes, to be found by path."""

    def __init__(self, table: Iterable[Route]) -> None:
        self._exact: dict[str, list[Route]] = {}
        self._patterns: list[tuple[re.Pattern[str], list[Route]]] = []
        for route in table:
            self._exact.setdefault(route.path, []).append(route)
        for path in [path for path in self._exact if "{" in path]:
            pattern = re.compile("".join("[^/]+" if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^}]*\})", path)))
            self._patterns.append((pattern, self._exact.pop(path)))

    def at(self, path: str) -> list[Route]:
        """Those of a path, as it is written: a path that is written otherwise is another."""
        if (found := self._exact.get(path)) is not None:
            return found
        return next((routes for pattern, routes in self._patterns if pattern.fullmatch(path)), [])

    def nearest(self, path: str) -> str:
        """What may have been meant."""
        return did_you_mean(path[:100], list(self._exact))
