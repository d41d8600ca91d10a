"""What an operator is: a name, a shape, a kernel and its parameters. No NumPy, no Numba: kernels are plain Python.

The *shape* says how the engine drives the kernel and what the driver takes off its hands:

======== ==================================== =========================================================
shape    kernel                               the driver
======== ==================================== =========================================================
ROW      `kernel(a, b) -> float`              missing in, missing out; a result that is not finite is an error
LOGIC    `kernel(a, b) -> float`              nothing: the kernel sees missing values (NaN) and errors (inf)
SERIES   `kernel(out, x, ..., *params)`       one instrument at a time; a row without its whole window, or
                                              with a missing value inside it, becomes missing
RAW      `kernel(out, x, ..., *params)`       one instrument at a time; nothing else
PRESENT  `kernel(x, ..., *params) -> float`   the values that the last `n` bars do have, oldest first (of two inputs those
                                              of bars that have both); missing when they
                                              are fewer than `min_count`; the kernel takes neither of these two
COUNT    `kernel(x) -> bool`                  one event at a time, missing ones among them: how many count
SUM      `kernel(x) -> float`                 the exact sum of a window's events; taken from running totals where
                                              those are exact, too
MOMENT   `kernel(n, *sums) -> float`          how many events a window has, and their exact sums; missing when
                                              fewer than `minimum`, or one of them is missing
WINDOW   `kernel(x, ..., *sums, *params)`     the events of a window themselves; missing as for MOMENT
         `-> float`
POINT    `kernel(out, x, time, *params)`      the points of one instrument, and when they became known; nothing else
AT       `kernel(out, time, x, seen, within)` the points of one instrument, other points with when those became known,
                                              and how long they may be seen; nothing else
STAGED   `kernel(...)`                        none: `asof.engine.stages` runs it before the plan, over whole panels; what
                                              it is given, its own docstring says
ACROSS   `kernel(out, x, ..., *params)`       the values of a section of instruments at one moment; none for a member that
                                              has no value; what is not finite, or comes from an error, is an error
RANKED   `kernel(out, x, order, *params)`     as for ACROSS; `order` sorts the values
SECTION  `kernel(x, *params) -> float`        as for ACROSS, one number for all members, with a value or without
======== ==================================== =========================================================

Booleans are 1.0 and 0.0. NaN is a missing value and inf an error (a division by zero, an overflow): both pass through every
later operator, missing before error, and a feature that ends as an error is reported missing with `COMPUTATION_ERROR`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cache

from asof.errors import DefinitionError
from asof.timeframes import duration


class Shape(Enum):
    """How the engine drives a kernel; see the module's table."""

    ROW = "row"
    LOGIC = "logic"
    SERIES = "series"
    RAW = "raw"
    PRESENT = "present"
    COUNT = "count"
    SUM = "sum"
    MOMENT = "moment"
    WINDOW = "window"
    POINT = "point"
    AT = "at"
    STAGED = "staged"
    ACROSS = "across"
    RANKED = "ranked"
    SECTION = "section"


EVENT_SHAPES = (Shape.COUNT, Shape.SUM, Shape.MOMENT, Shape.WINDOW)
POINT_SHAPES = (Shape.POINT, Shape.AT)
SECTION_SHAPES = (Shape.ACROSS, Shape.RANKED, Shape.SECTION)
STAGED_SHAPES = (Shape.STAGED, *SECTION_SHAPES)
BAR_SHAPES = (Shape.SERIES, Shape.RAW, Shape.PRESENT)


class Scaling(Enum):
    """What an operator makes of inputs that splits and dividends rescale, such as adjusted prices; see `asof.features.adjustment`."""

    UNKNOWN = "unknown"
    """Nothing that could be in a window."""
    SAME = "same"
    """Inputs that scale alike, and the result as they do: a sum, a mean, a lag."""
    COMPARISON = "comparison"
    """Inputs that scale alike, and a result that stays as it is: `<`, a rank."""
    SIGN = "sign"
    """Inputs that scale as they like, and a result that stays as it is: truth, a correlation."""
    PRESENCE = "presence"
    """Of the inputs only whether they are there."""
    PRODUCT = "product"
    QUOTIENT = "quotient"
    SQUARE = "square"
    ROOT = "root"
    CHOICE = "choice"
    """The first input only decides; the others scale alike, and the result as they do."""
    WEIGHTED = "weighted"
    """The first input by the second, which may not scale; the result scales as the first."""


@dataclass(frozen=True)
class Param:
    """A number that an operator takes beside its inputs. One without a default must be given; a `named` one is given by its name.

    One that is a `span` of time is written as a duration, and is microseconds.
    """

    name: str
    kind: type[int] | type[float] = int
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None
    named: bool = False
    span: bool = False

    def check(self, value: object, operator: str) -> int | float:
        """`value` as this parameter's kind, or a `DefinitionError` that says what is allowed."""
        if self.span:
            return duration(value if isinstance(value, str) else f"{value!r}")
        allowed = (int,) if self.kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed):
            noun = "a whole number" if self.kind is int else "a number"
            raise DefinitionError(f"{operator}: {self.name}={value!r} is not {noun}")
        if abs(value) > 1.7976931348623157e308 or value != value:
            shown = repr(value) if isinstance(value, float) else "a whole number beyond 1.8e308"
            raise DefinitionError(f"{operator}: {self.name}={shown} is not finite")
        if self.minimum is not None and value < self.minimum:
            ahead = operator == "lag" and value < 0
            mend = "; a negative one would look ahead, which only a label may: asof.labels.ahead(x, n)" if ahead else ""
            raise DefinitionError(f"{operator}: {self.name}={value!r} must be at least {self.minimum:g}{mend}")
        if self.maximum is not None and value > self.maximum:
            raise DefinitionError(f"{operator}: {self.name}={value!r} must be at most {self.maximum:g}")
        return self.kind(value)


LONGEST = 1_000_000
"""The most bars that one operator may look back."""


def window(minimum: int = 1) -> Param:
    """The length of a rolling window in bars, the current one included."""
    return Param("n", minimum=minimum, maximum=LONGEST)


WITHIN = Param("within", span=True)
"""How far back an operator over points may look, as a duration such as `"10s"`."""


def min_count(minimum: int = 1) -> Param:
    """How many values a window must have at least, for the operators that take what there is of it."""
    return Param("min_count", minimum=minimum, maximum=LONGEST, named=True)


DDOF = Param("ddof", minimum=0, maximum=1, default=1)
"""Delta degrees of freedom: 0 for the population's deviation, 1 (the default, as in pandas and Polars) for the sample's."""


@dataclass(frozen=True, eq=False)
class Operator:
    """One primitive of the language.

    `inputs` names the expressions it takes, the first being the one the method is called on. `sums` are the exact sums over a
    window that a kernel takes, each of the product of the inputs it names. `symbol` is how the text form writes it when
    it is not a method. `version` counts changes of meaning: it is part of every fingerprint. `scaling` says what it
    makes of adjusted prices.
    """

    name: str
    shape: Shape
    kernel: Callable[..., object]
    inputs: tuple[str, ...] = ("x",)
    params: tuple[Param, ...] = ()
    sums: tuple[tuple[str, ...], ...] = ()
    symbol: str | None = None
    minimum: int = 0
    version: int = 1
    scaling: Scaling = Scaling.UNKNOWN
    digest: str = ""
    """What tells the source of somebody's own operator from another, see `asof.operators.source`; '' for those that ship."""
    chosen: bool = False
    """Whether its last input, `where`, says which events of the window it is given; see `of_chosen`."""

    @property
    def stamp(self) -> str:
        """What goes into fingerprints."""
        return f"{self.key}@{self.version}{':' if self.digest else ''}{self.digest}"

    @property
    def meaning(self) -> tuple[object, ...]:
        """All that tells it from another definition of the same name, but for the kernel itself."""
        return tuple(getattr(self, f.name) for f in fields(self) if f.name != "kernel")

    @property
    def key(self) -> str:
        """The name that fingerprints use: unlike `name`, no two operators share it. It tells nothing of how the operator is computed."""
        prefix = f"{self.kind}." if self.kind else ""
        return f"{prefix}{self.name}{'.where' if self.chosen else ''}/{len(self.inputs)}"

    @property
    def values(self) -> tuple[str, ...]:
        """The inputs that the kernel works on."""
        return self.inputs[:-1] if self.chosen else self.inputs

    @property
    def kind(self) -> str:
        """What tells operators of one name apart beside their number of inputs: `events`, `points`, `present`, `across` or nothing."""
        if self.shape in SECTION_SHAPES:
            return "across"
        if self.shape in POINT_SHAPES:
            return "points"
        return "events" if self.shape in EVENT_SHAPES else "present" if self.shape is Shape.PRESENT else ""

    @property
    def signature(self) -> str:
        """How the operator is called, such as `x.std(n, ddof=1)`."""
        if self.symbol:
            return f"{self.symbol}x" if len(self.inputs) == 1 else f"{self.inputs[0]} {self.symbol} {self.inputs[1]}"
        if self.name == "where":
            return f"where({', '.join(self.inputs)})"
        extra = [f"{name}=" for name in self.inputs[1:]] if self.shape in EVENT_SHAPES else list(self.inputs[1:])
        if self.shape in SECTION_SHAPES:
            extra = list(self.inputs[1:-2])
        params = [f"{p.name}=" if p.named else p.name if p.default is None else f"{p.name}={p.default:g}" for p in self.params]
        if self.shape in SECTION_SHAPES:
            return f"across(...).{self.name}({', '.join(['x', *extra, *params])})"
        return f"{self.inputs[0]}.{self.name}({', '.join(extra + params)})"

    def reach(self, params: tuple[int | float, ...]) -> int:
        """How many earlier bars a row needs beside its own: `n` for a lag or a sum since a change, `n - 1` for a window of `n`."""
        if self.shape not in BAR_SHAPES:
            return 0
        return int(params[0]) if self.name in ("lag", "cumulative") else int(params[0]) - 1


@cache
def of_chosen(operator: Operator) -> Operator:
    """The operator over those events of a window where one more input, `where`, is true.

    One where it is missing is left out; where it is an error, all values of the event are.
    """
    return replace(operator, inputs=(*operator.inputs, "where"), chosen=True)
