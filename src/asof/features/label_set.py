"""Labels, which look ahead, and sets of them: the only place where what comes after a bar may be used.

Two kinds are enough. `Ahead` is the value that an expression has some bars later; a forward return is the return over `n` bars as it
is seen `n` bars later, to the bit, splits and dividends included. `Barriers` is what a price touches first.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from asof.errors import DefinitionError
from asof.features.adjustment import ADJUSTED, FREE
from asof.features.expression import BARS, Expr, bars, walk, where
from asof.features.feature_set import check_name, check_names
from asof.features.label import Label
from asof.features.spoken import fitting
from asof.features.text import expression_text, parse_expression

LONGEST = 100_000
"""The most bars that a label may look ahead."""
SPAN = ("label_from", "label_until")
"""The columns that tell when the first bar of any label could be known, and when the last one."""


@dataclass(frozen=True)
class Ahead(Label):
    """The value of an expression `horizon` bars later. Missing where there is no such bar, or where the expression is."""

    value: Expr
    horizon: int

    def __post_init__(self) -> None:
        _check_bars("ahead", value=self.value)
        _check_horizon("ahead", self.horizon)

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What is to be computed of each bar."""
        return (self.value,)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns beside the label's own are called, behind its name."""
        return ("until",)

    @property
    def text(self) -> str:
        """The canonical text, which `parse_label` reads back."""
        return f"ahead({expression_text(self.value)}, {self.horizon})"


@dataclass(frozen=True)
class Barriers(Label):
    """Which barrier a price touches first within `horizon` bars: 1 the upper, -1 the lower, 0 neither.

    The barriers lie `upper` and `lower` times `volatility` (a return, as seen from the label's own bar) away from its price, or just so
    much where that is None. `high` and `low` are what touches, the price itself where they are None.
    """

    price: Expr
    horizon: int
    upper: float
    lower: float
    volatility: Expr | None = None
    high: Expr | None = None
    low: Expr | None = None

    def __post_init__(self) -> None:
        more = {name: x for name in ("volatility", "high", "low") if (x := getattr(self, name)) is not None}
        _check_bars("triple_barrier", price=self.price, **more)
        _check_horizon("triple_barrier", self.horizon)
        for name, width in (("upper", self.upper), ("lower", self.lower)):
            if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < float("inf"):
                raise DefinitionError(f"triple_barrier: {name}={width!r} is not a number above 0")
        if (self.high is None) != (self.low is None):
            raise DefinitionError("triple_barrier: high and low go together: give both or none")
        scales = {x.scale for x in (self.price, self.high, self.low) if x is not None}
        if len(scales) > 1 or not scales <= {FREE, ADJUSTED["close"]}:
            raise DefinitionError(
                "triple_barrier: price, high and low must be all adjusted or all not, such as bars.adjusted.close and .high"
            )
        if self.volatility is not None and self.volatility.scale != FREE:
            raise DefinitionError("triple_barrier: volatility must be a return, such as returns.std(20); splits rescale this one")

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What is to be computed of each bar."""
        return tuple(x for x in (self.price, self.volatility, self.high, self.low) if x is not None)

    @property
    def columns(self) -> tuple[str, ...]:
        """What the columns beside the label's own are called, behind its name."""
        return ("return", "touch", "until")

    @property
    def text(self) -> str:
        """The canonical text, which `parse_label` reads back."""
        more = [f"{name}={getattr(self, name)!r}" for name in ("upper", "lower")]
        more += [f"{n}={expression_text(x)}" for n in ("volatility", "high", "low") if (x := getattr(self, n)) is not None]
        return f"triple_barrier({expression_text(self.price)}, {self.horizon}, {', '.join(more)})"


AnyLabel = Ahead | Barriers


@fitting
def ahead(value: Expr, n: int) -> Ahead:
    """The value that an expression over bars will have `n` bars later: a lag of `-n`, which only a label may have.

    >>> from asof import bars
    >>> ret_1 = bars.close / bars.close.lag(1) - 1
    >>> ahead(ret_1.std(20), 20).text  # the volatility of the next 20 bars
    'ahead((bars.close / bars.close.lag(1) - 1).std(20, ddof=1), 20)'
    """
    return Ahead(value, n)


@fitting
def forward_return(n: int, price: Expr = bars.close, *, log: bool = False) -> Ahead:
    """The return over the next `n` bars, `price[+n] / price - 1`, or the logarithm of the ratio."""
    _check_bars("forward_return", price=price)
    _check_horizon("forward_return", n)
    ratio = price / price.lag(n)
    return Ahead(ratio.log() if log else ratio - 1, n)


@fitting
def direction(n: int, threshold: Expr | float = 0.0, price: Expr = bars.close) -> Ahead:
    """1 where the return over the next `n` bars is above `threshold`, -1 where it is below its negative, else 0.

    A threshold that is an expression, such as a volatility, is that of the label's own bar.
    """
    ret = forward_return(n, price).value
    limit = threshold.lag(n) if isinstance(threshold, Expr) else threshold
    return Ahead(where(ret > limit, 1, where(ret < -limit, -1, 0)), n)


@fitting
def triple_barrier(
    price: Expr,
    n: int,
    *,
    upper: float,
    lower: float,
    volatility: Expr | None = None,
    high: Expr | None = None,
    low: Expr | None = None,
) -> Barriers:
    """Which of three barriers the price touches first (Lopez de Prado, Advances in Financial Machine Learning, 3.4).

    1 where the return since the label's bar reaches `upper` times `volatility` first, -1 where it falls to `-lower` times it, 0 where
    neither happens in `n` bars. Without `volatility` the barriers are plain returns: `upper=0.02`. The price touches at the bars' own
    values; with `high` and `low` their extremes do. Beside the label come the price's return at the bar that ended it, that bar's `ts` as
    the touch, and when all of it could be known.

    Missing where the price or the volatility is; where the path has a gap before a barrier is touched; where one bar reaches both, for then
    nobody knows which was first; and where fewer than `n` bars follow, though a barrier was touched, or the last rows would tell of those
    alone that touch soon.
    """
    return Barriers(price, n, upper, lower, volatility, high, low)


class LabelSet:
    """A version of labels, for training. What a `FeatureSet` is for features, and never a part of one.

    >>> from asof.features.label_set import LabelSet, forward_return
    >>> labels_v1 = LabelSet("labels_v1", {"ret_5": forward_return(5)})
    >>> labels_v1.horizon
    5
    """

    @fitting
    def __init__(self, version: str, labels: Mapping[str, AnyLabel]) -> None:
        check_name(version, "label set version")
        check_names(version, labels, "labels")
        if not labels:
            raise DefinitionError(f"label set {version} has no labels")
        for name, label in labels.items():
            check_name(name, "label")
            if not isinstance(label, Label):
                raise DefinitionError(f"label {name} of {version} is no label: {label!r}; to look ahead at an expression write ahead(x, n)")
        self.version = version
        self.labels: Mapping[str, AnyLabel] = MappingProxyType(dict(labels))
        lowered = [name.lower() for name in self.columns]
        if twice := sorted({name for name in lowered if lowered.count(name) > 1 or name in SPAN}):
            raise DefinitionError(f"label set {version} would have several columns {', '.join(twice)}: rename a label")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns, each label's own followed by those beside it."""
        return tuple(f"{name}_{more}" if more else name for name, label in self.labels.items() for more in ("", *label.columns))

    @property
    def horizon(self) -> int:
        """How many bars ahead the labels look at most."""
        return max(label.horizon for label in self.labels.values())

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """What is to be computed of each bar, each once."""
        return tuple(dict.fromkeys(x for label in self.labels.values() for x in label.expressions))

    @cached_property
    def text(self) -> str:
        """The canonical text, which `LabelSet.parse` reads back."""
        return "".join([f"label set {self.version}\n", *(f"label {name} = {label.text}\n" for name, label in self.labels.items())])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the text and of the meaning of every operator in it, in hexadecimal."""
        used = sorted({n.operator.stamp for n in walk(*self.expressions) if n.operator})
        return hashlib.sha256("\n".join([self.text, *used, ""]).encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> LabelSet:
        """The label set of a canonical text. Raises `DefinitionError` where it is none."""
        head, *lines = text.splitlines() or [""]
        if not head.startswith("label set "):
            raise DefinitionError(f"a definition of labels starts with 'label set <version>', not {head[:80]!r}")
        labels = {}
        for number, line in enumerate(lines, 2):
            found = _LINE.fullmatch(line)
            if not found:
                raise DefinitionError(f"line {number} of the definition is not 'label <name> = <label>': {line[:80]!r}")
            labels[found[1]] = parse_label(found[2])
        return cls(head.removeprefix("label set "), labels)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelSet) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return LabelSet.parse, (self.text,)

    def __repr__(self) -> str:
        return f"<LabelSet {self.version}: {len(self.labels)} labels, {self.horizon} bars ahead, {self.fingerprint[:12]}>"


_LINE = re.compile(r"label ([A-Za-z][A-Za-z0-9_]*) = (.+)")
_KINDS: dict[str, Callable[..., AnyLabel]] = {"ahead": ahead, "triple_barrier": triple_barrier}


def parse_label(text: str) -> AnyLabel:
    """The label that a text stands for; nothing is executed. Raises `DefinitionError` for anything else."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DefinitionError(f"{text[:80]!r} is no label: {error}") from None
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _KINDS):
        raise DefinitionError(f"{text[:80]!r} is no label: one is {' or '.join(f'{kind}(...)' for kind in _KINDS)}")
    named = {str(k.arg): _argument(k.value) for k in node.keywords}
    return _KINDS[node.func.id](*map(_argument, node.args), **named)


def _argument(node: ast.expr) -> Expr | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    return parse_expression(ast.unparse(node))


def _check_bars(kind: str, **given: object) -> None:
    for name, expr in given.items():
        if not (isinstance(expr, Expr) and expr.domain == BARS):
            raise DefinitionError(f"{kind}: {name} is no expression over bars: {expr!r}")


def _check_horizon(kind: str, n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= LONGEST:
        raise DefinitionError(f"{kind}: n={n!r} is not a whole number of bars from 1 to {LONGEST:,}")
