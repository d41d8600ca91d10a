"""Feature sets: a version, its features and its quality flags, immutable; with text, fingerprint and lookback."""

from __future__ import annotations

import difflib
import hashlib
import keyword
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

from asof.errors import DefinitionError, NotFound, did_you_mean
from asof.features.across import crosses, schemes
from asof.features.expression import BARS, Expr, higher_timeframes, lookback, reaches, walk, windows
from asof.features.label import WHY, Label
from asof.features.spoken import fitting
from asof.features.streams import EVENTS, MARKET, Reach
from asof.features.text import definition_text, parse_definition

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
RESERVED = frozenset(
    [
        "across",
        "bars",
        "events",
        "trades",
        "quotes",
        "books",
        "actions",
        "memberships",
        "where",
        "instrument_id",
        "timeframe",
        "ts",
        "ts_utc",
        "available_at",
        "known_at",
        "known_from",
        "known_to",
        "feature_set_version",
        "event_timestamp",
        "quality_flags",
        "event_count",
        "ohlcv_count",
        "computed_at",
        "pipeline_version",
        "registry",
        "quarantine",
        "feature_quality_log",
        "features",
        "feature_vectors",
        "feature_vectors_json",
        "feature_vectors_latest",
        "ohlcv",
        "layout",
        "asof_migrations",
    ]
)
COMPUTATION_ERROR = "COMPUTATION_ERROR"
"""The flag that the engine raises itself, in every set: a feature came out non-finite though nothing it needs was missing."""

MOST_FLAGS = 62


class FeatureSet:
    """A version of features and flags.

    `features` and `flags` map names to expressions over bars; flags are raised where theirs is true. Every set also has the flag
    `COMPUTATION_ERROR`. Raises `DefinitionError` for names that no table could hold and for expressions that are not over bars.

    >>> from asof import FeatureSet, bars
    >>> mini = FeatureSet("mini", {"ret_1": bars.close / bars.close.lag(1) - 1})
    >>> mini.lookback
    2
    """

    @fitting
    def __init__(self, version: str, features: Mapping[str, Expr], flags: Mapping[str, Expr] | None = None) -> None:
        check_name(version, "feature set version")
        check_names(version, features, "features")
        check_names(version, {} if flags is None else flags, "flags")
        if not features:
            raise DefinitionError(f"feature set {version} has no features")
        if len(flags or {}) > MOST_FLAGS:
            raise DefinitionError(f"feature set {version} has {len(flags or {})} flags; at most {MOST_FLAGS} fit")
        for kind, group in (("feature", features), ("flag", flags or {})):
            for name, expr in group.items():
                check_name(name, kind)
                if isinstance(expr, Label):
                    raise DefinitionError(
                        f"{kind} {name} of {version} is a label: {WHY}; put it into a LabelSet, and join that for training"
                    )
                if not isinstance(expr, Expr) or expr.domain != BARS or (expr.operator is None and not expr.name):
                    higher = isinstance(expr, Expr) and isinstance(expr.domain, str) and expr.domain != BARS
                    mend = ": take what was known of it, with .latest()" if higher else ""
                    raise DefinitionError(f"{kind} {name} of {version} is not an expression over bars: {expr!r}{mend}")
            lowered = [name.lower() for name in group]
            if twice := sorted({name for name in lowered if lowered.count(name) > 1}):
                raise DefinitionError(f"{kind}s of {version} differ only in case: {', '.join(twice)}")
        self.version = version
        self.features: Mapping[str, Expr] = MappingProxyType(dict(features))
        self.flags: Mapping[str, Expr] = MappingProxyType(dict(flags or {}))

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags in the order of their bits; `COMPUTATION_ERROR` is the last."""
        return (*self.flags, COMPUTATION_ERROR)

    @cached_property
    def text(self) -> str:
        """The canonical text, which `FeatureSet.parse` reads back."""
        return definition_text(self.version, self.features, self.flags)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the text and of the semantic version of every operator in it, in hexadecimal."""
        used = {n.operator for n in walk(*self.roots) if n.operator}
        versions = "\n".join(sorted(o.stamp for o in used))
        return hashlib.sha256(f"{self.text}\n{versions}\n".encode()).hexdigest()

    @property
    def roots(self) -> tuple[Expr, ...]:
        """The expressions of the features, then of the flags."""
        return (*self.features.values(), *self.flags.values())

    @cached_property
    def lookback(self) -> int:
        """How many bars, the current one included, a vector depends on."""
        return lookback(*self.roots)

    @cached_property
    def event_window(self) -> int:
        """The longest event window in microseconds; 0 for a set without events."""
        return max((window.length for window in windows(*self.roots) if window.stream == EVENTS), default=0)

    @cached_property
    def reaches(self) -> Mapping[str, Reach]:
        """How far back a vector depends on the points of each stream that the set looks at."""
        return reaches(*self.roots)

    @property
    def market(self) -> bool:
        """Whether the set looks at trades, quotes or order books."""
        return any(stream in MARKET for stream in self.reaches)

    @cached_property
    def higher(self) -> Mapping[str, int]:
        """The higher timeframes whose bars a vector depends on, and on how many of each."""
        return higher_timeframes(*self.roots)

    @cached_property
    def crosses(self) -> bool:
        """Whether a vector depends on other instruments."""
        return crosses(*self.roots)

    @cached_property
    def schemes(self) -> tuple[str, ...]:
        """The universes and groupings that a vector depends on."""
        return schemes(*self.roots)

    def select(self, names: Iterable[str]) -> tuple[str, ...]:
        """The names, checked to be features of this set."""
        chosen = tuple(names)
        for name in chosen:
            if name not in self.features:
                raise NotFound(f"{self.version} has no feature {name!r}{did_you_mean(name, list(self.features))}")
        return chosen

    @classmethod
    def parse(cls, text: str) -> FeatureSet:
        """The feature set of a canonical text, rebuilt without any code of its author's."""
        return cls(*parse_definition(text))

    def difference(self, registered: str) -> str:
        """The unified difference from a registered text to this one; empty where they are the same."""
        lines = difflib.unified_diff(
            registered.splitlines(), self.text.splitlines(), f"{self.version} as registered", f"{self.version} as defined", lineterm="", n=1
        )
        return "\n".join(lines)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeatureSet) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return FeatureSet.parse, (self.text,)

    def __repr__(self) -> str:
        return f"<FeatureSet {self.version}: {len(self.features)} features, {self.lookback} bars back, {self.fingerprint[:12]}>"


def check_names(version: str, given: object, what: str) -> None:
    """Refuse what gives no names to the parts of a set."""
    if not isinstance(given, Mapping):
        raise DefinitionError(f"the {what} of {version} are {type(given).__name__}: give a dictionary from names to them")


def check_name(name: object, what: str) -> None:
    """Refuse what cannot be the name of a column or a table."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DefinitionError(f"{what} {name!r} must be a letter, then up to 62 letters, digits or underscores")
    if name.lower() in RESERVED or name == COMPUTATION_ERROR or keyword.iskeyword(name):
        raise DefinitionError(f"{what} {name!r} is a reserved word; choose another, such as {name + '_1'!r}")
