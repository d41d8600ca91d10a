"""The plan of a feature set: steps over numbered buffers, each told what its rows are.

1. `_Planner.value` turns expressions into steps; equal nodes are one. The sums that a kernel asks for are nodes like any other.
2. What is made of single points is made once for all windows of their stream. What is reduced from them has a row for each distinct window
   of a morsel, and so has what is computed from it alone. Only where it meets bars does a SPREAD give each bar the value of its window.
3. An operator over bars that is given adjusted values gets, for each input, a value that tells what the actions before each bar rescale it
   with; the step then looks at the windows behind an action again, rescaled (`asof.engine.drivers.rescaled`).
4. A staged operator (of a higher timeframe, ...) is a column to the steps above it: `_stages` gathers those that can be computed together,
   with a plan of their own for what they are made of, to be run before this one (`asof.engine.stages`).
5. `_Planner.finished` hands out buffers as steps need them and takes them back after the last step that reads them, so that those of
   a morsel stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np

from asof.engine.drivers import driver
from asof.engine.panel import Column
from asof.features.adjustment import FREE, PREFIX, PRICE_FACTOR, VOLUME_FACTOR, Scale, rescales
from asof.features.expression import BARS, Expr, apply, bars, column, constant, events, reaches, walk
from asof.features.feature_set import FeatureSet
from asof.features.streams import EVENTS, STREAMS, Reach, Window
from asof.operators import BAR_SHAPES, EVENT_SHAPES, POINT_SHAPES, SECTION_SHAPES, STAGED_SHAPES, Operator, Scaling, Shape
from asof.timeframes import duration_text

ANY, ON_BARS, ON_STREAMS, ON_WINDOWS = -1, 0, 1, 5
"""What the rows of a value are: those of anything (a constant), bars, for `ON_STREAMS + k` the points of stream `k`, or for
`ON_WINDOWS + k` the windows `k`."""

OHLCV_COUNT, EVENT_COUNT = 0, 1

STAGED = "staged."
"""What the names of the columns begin with that staged operators become."""


class Kind(IntEnum):
    """What a step does with its inputs."""

    APPLY = 0
    """Run an operator over them."""
    SPREAD = 1
    """Give each bar the value of its window."""
    FEATURE = 2
    """Keep it as the feature number `place`."""
    FLAG = 3
    """Raise the flag number `place` where it is true."""
    COUNT = 4
    """Keep it as a count: `place` is `OHLCV_COUNT` or `EVENT_COUNT`."""


@dataclass(frozen=True)
class Step:
    """One step, over rows `on`, from the buffers `inputs` into the buffer `out`, or the result number `place`."""

    kind: Kind
    on: int
    inputs: tuple[int, ...]
    out: int = 0
    place: int = 0
    operator: Operator | None = None
    params: tuple[float, ...] = ()
    rescaled: bool = False
    """Whether the operator's inputs are followed by what rescales each of them."""
    seen: int = 0
    """What the rows are that an AT sees from others."""


@dataclass(frozen=True)
class Staged:
    """A staged operator: the column that it becomes, and which features of its stage's plan it takes."""

    column: str
    operator: Operator
    params: tuple[float, ...]
    inputs: tuple[int, ...]
    scale: Scale
    lookback: int
    reaches: Mapping[str, Reach]
    looked_at: Mapping[str, int]
    """On how many bars, which points and how many bars of other staged columns its inputs depend."""
    members: str = ""
    groups: str = ""
    """The columns that tell of an operator across instruments what is in its universe, and in which group; none for all, and for one."""


@dataclass(frozen=True)
class Stage:
    """What is computed before a plan, and becomes columns of its bars.

    `plan` gives the inputs of its nodes, as its features; it is of the bars of `timeframe`, or of the same bars where that is None.
    """

    timeframe: str | None
    plan: Plan
    nodes: tuple[Staged, ...]


@dataclass(frozen=True)
class Plan:
    """What the engine runs for a feature set, after its stages, which are run in their order.

    Buffers are numbered from 0. Those of `bar_columns` and `point_columns` hold a column as it came, those of `constants` one number
    throughout; `bar_buffers` and `point_buffers` have room for a row of each bar or point of a morsel.
    """

    feature_set: FeatureSet
    steps: tuple[Step, ...]
    bar_columns: Mapping[str, int]
    point_columns: Mapping[str, Mapping[Column, int]]
    constants: Mapping[int, float]
    bar_buffers: tuple[int, ...]
    point_buffers: Mapping[str, tuple[int, ...]]
    windows: tuple[Window, ...]
    stages: tuple[Stage, ...] = ()
    looked_at: Mapping[str, int] = field(default_factory=dict)
    """On how many bars of each column of a staged operator a row depends, its own included."""

    @property
    def lookback(self) -> int:
        """Bars that a vector depends on, its own included."""
        return self.feature_set.lookback

    @property
    def reaches(self) -> Mapping[str, Reach]:
        """How far back it looks at the points of each stream."""
        return self.feature_set.reaches

    @property
    def points(self) -> Mapping[str, frozenset[Column]]:
        """The columns of each stream of points that the plan and its stages over the same bars read."""
        same = [stage.plan.points for stage in self.stages if stage.timeframe is None]
        return {stream: frozenset(own).union(*(read.get(stream, ()) for read in same)) for stream, own in self.point_columns.items()}

    @property
    def columns(self) -> frozenset[str]:
        """The columns of bars that the plan and its stages over the same bars read."""
        same = [stage for stage in self.stages if stage.timeframe is None]
        told = {name for stage in same for node in stage.nodes for name in (node.members, node.groups) if name}
        own = {name for name in self.bar_columns if not name.startswith(STAGED)}
        return frozenset(own | told).union(*(stage.plan.columns for stage in same))

    @property
    def crosses(self) -> bool:
        """Whether other instruments matter."""
        return any(node.operator.shape in SECTION_SHAPES for stage in self.stages for node in stage.nodes)

    @property
    def adjusted(self) -> bool:
        """Whether splits and dividends matter."""
        own = not self.bar_columns.keys().isdisjoint((PRICE_FACTOR, VOLUME_FACTOR))
        return own or any(stage.plan.adjusted or any(rescales(node.scale) for node in stage.nodes) for stage in self.stages)

    @property
    def buffers(self) -> int:
        """How many buffers there are."""
        held = len(self.bar_columns) + sum(map(len, self.point_columns.values())) + len(self.constants)
        return held + len(self.bar_buffers) + sum(map(len, self.point_buffers.values()))


def plan(feature_set: FeatureSet) -> Plan:
    """The plan of a feature set. Equal parts of its features and flags are computed once."""
    names = _staged_columns(feature_set)
    made = _plan(feature_set, names)
    return replace(made, stages=_stages(names)) if names else made


def _plan(feature_set: FeatureSet, staged: Mapping[Expr, str]) -> Plan:
    """The plan of a feature set in which some staged operators are columns."""
    planner = _Planner(staged)
    for kind, group in ((Kind.FEATURE, feature_set.features), (Kind.FLAG, feature_set.flags)):
        for place, expr in enumerate(group.values()):
            planner.keep(kind, expr, place)
    planner.keep(Kind.COUNT, bars.count(feature_set.lookback), OHLCV_COUNT)
    if EVENTS in feature_set.reaches:
        planner.keep(Kind.COUNT, events.window(duration_text(feature_set.event_window)).count(), EVENT_COUNT)
    return replace(planner.finished(feature_set), looked_at=_Reach.of(feature_set.roots, staged).looked_at)


@dataclass(frozen=True)
class _Reach:
    """What expressions look at without passing through staged operators that are columns."""

    lookback: int
    points: Mapping[str, Reach]
    looked_at: Mapping[str, int]

    @classmethod
    def of(cls, roots: tuple[Expr, ...], staged: Mapping[Expr, str]) -> _Reach:
        """The reach of expressions; some staged operators are columns."""

        def below(node: Expr) -> tuple[Expr, ...]:
            return () if node in staged else node.inputs

        nodes = list(walk(*roots, below=below))
        bars: dict[Expr, int] = {}
        for node in reversed(nodes):  # each after those that it is an input of
            reach = node.operator.reach(node.params) if node.operator else 0
            for i in below(node):
                bars[i] = max(bars.get(i, 1), bars.get(node, 1) + reach)
        own = [bars.get(node, 1) + (node.lookback - 1 if node.operator is None else 0) for node in nodes if node not in staged]
        return cls(max(own, default=1), reaches(*roots, below=below), {staged[n]: bars.get(n, 1) for n in nodes if n in staged})


class _Planner:
    """Steps as they are made, over values that are numbered in the order in which they are made; `_on` tells what their rows are."""

    def __init__(self, staged: Mapping[Expr, str]) -> None:
        self._staged = staged
        self._steps: list[Step] = []
        self._on: list[int] = []
        self._columns: dict[tuple[int, Column], int] = {}
        self._constants: dict[int, float] = {}
        self._windows: list[Window] = []
        self._values: dict[Expr, int] = {}
        self._of_points: dict[Expr, Expr] = {}
        self._spread: dict[int, int] = {}

    def keep(self, kind: Kind, expr: Expr, place: int) -> None:
        """A step that makes an expression a result."""
        value = self._value(expr)
        self._steps.append(Step(kind, max(self._on[value], ON_BARS), (value,), place=place))

    def _value(self, root: Expr) -> int:
        """The value of an expression, after the steps that make it."""
        for node in walk(root, below=lambda node: () if node in self._staged else node.inputs):
            if node not in self._values:
                alone = self._alone(node) if isinstance(node.domain, Window) else node
                if alone not in self._values:
                    self._values[alone] = self._make(alone)
                self._values[node] = self._values[alone]
        return self._values[root]

    def _alone(self, node: Expr) -> Expr:
        """An expression over points, the same whatever window it was written for."""
        assert isinstance(node.domain, Window)
        inputs, params = tuple(self._of_points.get(i, i) for i in node.inputs), node.params
        if node.operator and node.operator.shape is Shape.AT and not params:
            assert isinstance(node.inputs[0].domain, Window)
            params = (node.inputs[0].domain.length,)  # how long a point is seen
        made = Expr(node.operator, inputs, params, node.name, Window(node.domain.stream, 0))
        self._of_points[node] = self._of_points[made] = made
        return made

    def _make(self, node: Expr) -> int:
        if node.operator is None:
            return self._leaf(node)
        if node in self._staged:
            return self._column(ON_BARS, (self._staged[node],))
        inputs = [self._values[i] for i in node.inputs]
        if node.operator.shape is Shape.AT:
            on = _on(node.domain)
            return self._step(Kind.APPLY, on, inputs[:1], on, node.operator, node.params, seen=_on(node.inputs[0].domain))
        if node.operator.shape in EVENT_SHAPES:
            return self._reduced(node, inputs)
        if all(i in self._constants for i in inputs) and node.operator.shape not in (*BAR_SHAPES, *POINT_SHAPES):
            return self._folded(node, inputs)
        on = self._rows(node, inputs)
        if on == ON_BARS:
            inputs = [self._on_bars(i) for i in inputs]
        factors = self._factors(node)
        return self._step(Kind.APPLY, on, inputs + factors, on, node.operator, node.params, rescaled=bool(factors))

    def _factors(self, node: Expr) -> list[int]:
        """What rescales the inputs of a window, one for each; none where nothing does."""
        assert node.operator is not None
        fixed = node.operator.shape not in BAR_SHAPES or node.operator.scaling is Scaling.PRESENCE
        if fixed or not any(rescales(i.scale) for i in node.inputs):
            return []
        return [self._value(_factor(i.scale)) for i in node.inputs]

    def _new(self, on: int) -> int:
        self._on.append(on)
        return len(self._on) - 1

    def _step(
        self,
        kind: Kind,
        on: int,
        inputs: list[int],
        out_on: int,
        operator: Operator | None = None,
        params: tuple[float, ...] = (),
        *,
        rescaled: bool = False,
        seen: int = 0,
    ) -> int:
        out = self._new(out_on)
        self._steps.append(Step(kind, on, tuple(inputs), out, 0, operator, params, rescaled, seen))
        return out

    def _leaf(self, node: Expr) -> int:
        if not node.name:  # a number, or the presence of a row
            return self._constant(node.params[0] if node.params else 1.0)
        return self._column(_on(node.domain), (node.name.removeprefix(PREFIX), *node.params))  # seen from its own bar it is the price

    def _column(self, on: int, name: Column) -> int:
        if (on, name) not in self._columns:
            self._columns[on, name] = self._new(on)
        return self._columns[on, name]

    def _constant(self, number: float) -> int:
        value = self._new(ANY)
        self._constants[value] = number
        return value

    def _folded(self, node: Expr, inputs: list[int]) -> int:
        """An operator over constants is a constant."""
        assert node.operator is not None
        out = np.empty(1)
        driver(node.operator)(out, tuple(np.array([self._constants[i]]) for i in inputs), node.params)
        return self._constant(float(out[0]))

    def _rows(self, node: Expr, inputs: list[int]) -> int:
        """What the rows of an operator by row or by bar are: its inputs', where they agree."""
        assert node.operator is not None
        if isinstance(node.domain, Window):
            return _on(node.domain)
        found = {self._on[i] for i in inputs} - {ANY}
        return found.pop() if len(found) == 1 and node.operator.shape not in BAR_SHAPES else ON_BARS

    def _reduced(self, node: Expr, inputs: list[int]) -> int:
        """A reduction of points, with the exact sums that its kernel asks for."""
        assert node.operator is not None
        window = next(i.domain for i in node.inputs if isinstance(i.domain, Window))
        if window not in self._windows:
            self._windows.append(window)
        given = dict(zip(node.operator.inputs, node.inputs, strict=True))
        only = {"where": given["where"]} if node.operator.chosen else {}
        sums = [self._value(_sum(column("", window), *(given[name] for name in names), **only)) for names in node.operator.sums]
        on = ON_WINDOWS + self._windows.index(window)
        return self._step(Kind.APPLY, on, inputs + sums, on, node.operator, node.params)

    def _on_bars(self, value: int) -> int:
        """The value with a row for each bar."""
        if self._on[value] < ON_WINDOWS:
            return value
        if value not in self._spread:
            self._spread[value] = self._step(Kind.SPREAD, self._on[value], [value], ON_BARS)
        return self._spread[value]

    def _room(self, value: int) -> int:
        """Which buffers a value may have: those of bars or of a stream."""
        return self._on[value] if self._on[value] < ON_WINDOWS else ON_BARS

    def finished(self, feature_set: FeatureSet) -> Plan:
        """The plan, its values in buffers."""
        last = {value: s for s, step in enumerate(self._steps) for value in step.inputs}
        fixed = {value: buffer for buffer, value in enumerate((*self._columns.values(), *self._constants))}
        place = dict(fixed)
        rooms = ON_STREAMS + len(STREAMS)  # windows are not more than bars, and have room where bars have
        made: tuple[list[int], ...] = tuple([] for _ in range(rooms))
        free: tuple[list[int], ...] = tuple([] for _ in range(rooms))
        steps = []
        for s, step in enumerate(self._steps):
            if step.kind in (Kind.APPLY, Kind.SPREAD):
                room = self._room(step.out)
                if not free[room]:
                    free[room].append(len(fixed) + sum(map(len, made)))
                    made[room].append(free[room][-1])
                place[step.out] = free[room].pop()
            steps.append(replace(step, inputs=tuple(place[i] for i in step.inputs), out=place.get(step.out, 0)))
            for value in {i for i in step.inputs if last[i] == s and i not in fixed}:
                free[self._room(value)].append(place[value])
        return Plan(
            feature_set=feature_set,
            steps=tuple(steps),
            bar_columns={str(name): place[value] for (on, (name, *_)), value in self._columns.items() if on == ON_BARS},
            point_columns={
                stream: {name: place[value] for (on, name), value in self._columns.items() if on == ON_STREAMS + k}
                for k, stream in enumerate(STREAMS)
                if stream in feature_set.reaches
            },
            constants={place[value]: number for value, number in self._constants.items()},
            bar_buffers=tuple(made[0]),
            point_buffers={stream: tuple(made[ON_STREAMS + k]) for k, stream in enumerate(STREAMS) if stream in feature_set.reaches},
            windows=tuple(self._windows),
        )


def _on(domain: object) -> int:
    """What the rows of a column are."""
    return ON_STREAMS + STREAMS.index(domain.stream) if isinstance(domain, Window) else ON_BARS


def _same_bars(node: Expr) -> tuple[Expr, ...]:
    """What a node is made of that has a row for each of the same bars."""
    return tuple(i for i in node.inputs if not isinstance(i.domain, str) or i.domain == node.domain)


def _staged_columns(feature_set: FeatureSet) -> dict[Expr, str]:
    """The staged operators over a feature set's own bars, each after those that it stands on, and the columns that they become."""
    nodes = walk(*feature_set.roots, below=_same_bars)
    found = [node for node in nodes if node.operator and node.operator.shape in STAGED_SHAPES]
    return {node: f"{STAGED}{k}" for k, node in enumerate(found)}


def _stages(names: Mapping[Expr, str]) -> tuple[Stage, ...]:
    """Staged operators in stages: those of the same bars together that stand on equally many others."""
    depths: dict[Expr, int] = {}
    groups: dict[tuple[int, str], list[Expr]] = {}
    for node in walk(*names, below=_same_bars):
        depths[node] = max((depths[i] for i in _same_bars(node)), default=0) + (node in names)
        if node in names:
            groups.setdefault((depths[node], str(node.inputs[0].domain or BARS)), []).append(node)
    return tuple(_stage(None if domain == BARS else domain, nodes, names) for (_, domain), nodes in sorted(groups.items()))


def _stage(timeframe: str | None, nodes: list[Expr], names: Mapping[Expr, str]) -> Stage:
    inputs = {expr: k for k, expr in enumerate(dict.fromkeys(i for node in nodes for i in _values(node)))}
    features = {f"x{k}": expr if timeframe is None else _on_base(expr) for expr, k in inputs.items()}
    feature_set = FeatureSet("stage", features)
    staged = []
    for node in nodes:
        assert node.operator is not None
        told = [i.name for i in node.inputs[len(_values(node)) :]]
        reach = _Reach.of(_values(node), names)
        looks = (reach.lookback, reach.points, reach.looked_at)
        staged.append(Staged(names[node], node.operator, node.params, tuple(inputs[i] for i in _values(node)), node.scale, *looks, *told))
    return Stage(timeframe, _plan(feature_set, names) if timeframe is None else plan(feature_set), tuple(staged))


def _values(node: Expr) -> tuple[Expr, ...]:
    """The inputs of a staged operator that its stage's plan gives; the columns of a universe and of groups come as they are."""
    assert node.operator is not None
    return node.inputs[:-2] if node.operator.shape in SECTION_SHAPES else node.inputs


def _on_base(root: Expr) -> Expr:
    """An expression over the bars of a higher timeframe as one over bars, which is what they are to their own plan."""
    made: dict[Expr, Expr] = {}
    for node in walk(root):
        domain = BARS if isinstance(node.domain, str) else node.domain
        made[node] = Expr(node.operator, tuple(made[i] for i in node.inputs), node.params, node.name, domain)
    return made[root]


def _sum(present: Expr, first: Expr, *more: Expr, **only: Expr) -> Expr:
    """The sum, over the points that are present (`only` those where it is true), of the product of some columns and numbers."""
    product = first if isinstance(first.domain, Window) or more else apply("multiply", present, first)
    for factor in more:
        product = apply("multiply", product, factor)
    return apply("sum", product, **only)


def _factor(scale: Scale) -> Expr:
    """What the actions before a bar rescale earlier values of this scale with."""
    powers = scale if isinstance(scale, tuple) else FREE
    factor: Expr | None = None
    for name, power in zip((PRICE_FACTOR, VOLUME_FACTOR), powers, strict=True):
        for _ in range(abs(power)):
            step = column(name, BARS)
            factor = apply("multiply" if power > 0 else "divide", constant(1.0) if factor is None else factor, step)
    return constant(1.0) if factor is None else factor
