"""Across instruments: `across("sp500", by="sector")` stands for the members of a universe that have a bar at one moment.

What is in a universe, or in a group, is told by memberships (`asof.records.MEMBERSHIPS`), as they were known when the bar opened. An
operator over a section has beside its inputs the column of the universe and that of the groups; where there is none of them, a constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from asof.errors import DefinitionError, UnknownName, did_you_mean
from asof.features.expression import BARS, Domain, Expr, Number, as_no_expression, column, constant, walk
from asof.features.spoken import fitting, spoken
from asof.features.streams import Window
from asof.operators import OPERATORS, SECTION_SHAPES, Operator

MEMBER, GROUP = "member.", "group."
"""What the names of the columns begin with that tell whether an instrument is in a universe, and in which group."""
SCHEME = r"[A-Za-z][A-Za-z0-9_]{0,62}"
"""What the name of a universe or grouping matches."""
SECTION: dict[tuple[str, int], Operator] = {(o.name, len(o.inputs) - 2): o for o in OPERATORS if o.shape in SECTION_SHAPES}
"""The operators over sections by name, and by how many values of a member they look at."""
NAMES = tuple(dict.fromkeys(name for name, _ in SECTION))


@spoken
@as_no_expression
@dataclass(frozen=True)
class Across:
    """The members of a universe at each moment, or all instruments that have a bar there; with `by`, those of the same group.

    Its methods look at an expression over the bars of every member: `sp500.rank(bars.close / bars.close.lag(20) - 1)`. An instrument that
    is not a member, or is in no group, has no value.
    """

    universe: str | None = None
    by: str | None = None

    def __post_init__(self) -> None:
        for name in (self.universe, self.by):
            if name is not None and not (isinstance(name, str) and re.fullmatch(SCHEME, name)):
                raise DefinitionError(f"across: {name!r} must be a letter, then up to 62 letters, digits or underscores, such as 'sp500'")

    @property
    def member(self) -> Expr:
        """1 where the instrument is in the universe, else missing. Raises `DefinitionError` where all instruments are."""
        if self.universe is None or self.by is not None:
            raise DefinitionError("member is of a universe alone: across('sp500').member")
        return column(MEMBER + self.universe, BARS)

    def demean(self, x: Expr) -> Expr:
        """Each member's value less the mean of all, or of its group."""
        return self._apply("demean", (x,))

    def neutralise(self, x: Expr, against: Expr | None = None, *, by: str | None = None) -> Expr:
        """What is left of each value when a straight line over `against` is taken away; without it, the mean.

        Of all, or of the groups of `by`: `sp500.neutralise(x, by="sector")`.
        """
        section = self if by is None else Across(self.universe, by)
        if self.by not in (None, section.by):
            raise DefinitionError(f"neutralise: by={by!r}, but the section is by {self.by!r}: say it once")
        if section != self:
            return section.neutralise(x, against)
        return self.demean(x) if against is None else self._apply("neutralise", (x, against))

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in NAMES:
            raise UnknownName(f"across has no operator {name!r}{did_you_mean(name, NAMES)}")
        return lambda *args, **named: self._of_one(name, args, named)

    def __dir__(self) -> list[str]:
        return [*NAMES, "by", "member", "universe"]

    def __repr__(self) -> str:
        given = [f'"{self.universe}"'] if self.universe else []
        return f"across({', '.join([*given, *([f'by={chr(34)}{self.by}{chr(34)}'] if self.by else [])])})"

    def _of_one(self, name: str, args: tuple[object, ...], named: dict[str, object]) -> Expr:
        """An operator that looks at one value of each member, given first or as `x`."""
        values, rest = ((named.pop("x"),), args) if "x" in named else (args[:1], args[1:])
        if not values:
            raise DefinitionError(f"{name} takes {SECTION[name, 1].signature}: x is not given")
        return self._apply(name, values, *rest, **named)

    def _apply(self, name: str, values: tuple[object, ...], *args: object, **named: object) -> Expr:
        operator = SECTION[name, len(values)]
        looked_at = tuple(_over_bars(operator, x) for x in values)
        members = constant(1) if self.universe is None else column(MEMBER + self.universe, BARS)
        groups = constant(0) if self.by is None else column(GROUP + self.by, BARS)
        return Expr(operator, (*looked_at, members, groups), _params(operator, args, named), "", BARS)


@fitting
def across(universe: str | None = None, by: str | None = None) -> Across:
    """The members of a universe at each moment, or all instruments that have a bar; with `by`, those of the same group of a grouping.

    >>> from asof import across, bars
    >>> across("sp500", by="sector").rank(bars.close / bars.close.lag(20) - 1)
    across("sp500", by="sector").rank(bars.close / bars.close.lag(20) - 1)
    """
    return Across(universe, by)


def across_of(node: Expr) -> Across:
    """What an operator over sections looks across."""
    members, groups = (i.name.partition(".")[2] or None for i in node.inputs[-2:])
    return Across(members, groups)


def crosses(*roots: Expr) -> bool:
    """Whether the expressions look across instruments."""
    return any(node.operator and node.operator.shape in SECTION_SHAPES for node in walk(*roots))


def schemes(*roots: Expr) -> tuple[str, ...]:
    """The universes and groupings that the expressions use, sorted."""
    leaves = (node.name for node in walk(*roots) if node.operator is None)
    return tuple(sorted({name.partition(".")[2] for name in leaves if name.startswith((MEMBER, GROUP))}))


def _over_bars(operator: Operator, x: object) -> Expr:
    """The same, refused where it is no expression over bars."""
    if not isinstance(x, Expr):
        raise DefinitionError(f"{operator.name} looks at an expression over bars, not at {x!r}")
    if x.domain != BARS or (x.operator is None and not x.name):
        raise DefinitionError(f"{operator.name} looks across instruments at values of their bars, not at {_rows(x.domain)}: {x!r}")
    return x


def _rows(domain: Domain) -> str:
    if domain is None:
        return "a constant"
    if isinstance(domain, Window):
        return f"{domain.stream} (reduce them first, such as .mean())"
    return f"those of {domain} (take .latest() of them first)"


def _params(operator: Operator, args: tuple[object, ...], named: dict[str, object]) -> tuple[Number, ...]:
    """The parameters of an operator over sections, given in order or by name."""
    names = [p.name for p in operator.params]
    bound = dict(zip(names, args, strict=False))
    wrong = [key for key in named if key not in names or key in bound]
    if len(args) > len(names) or wrong:
        raise DefinitionError(f"{operator.name} takes {operator.signature}, not {f'{wrong[0]}=' if wrong else f'{len(args) + 1} values'}")
    bound |= named
    bound = {p.name: p.kind(p.default) for p in operator.params if p.default is not None} | bound
    if missing := [name for name in names if name not in bound]:
        raise DefinitionError(f"{operator.name} takes {operator.signature}: {missing[0]} is not given")
    params = tuple(p.check(bound[p.name], operator.name) for p in operator.params)
    if operator.name == "winsorize" and params[0] > params[1]:
        raise DefinitionError(f"winsorize: lower={params[0]:g} is above upper={params[1]:g}")
    return params


__all__ = ["Across", "across", "across_of", "crosses", "schemes"]
