"""The plan of a feature set: its unique nodes in order, each told which buffer to read and which to write."""

from __future__ import annotations

from dataclasses import dataclass

from asof.features.expression import BARS, Expr, bars, events, walk
from asof.features.feature_set import FeatureSet
from asof.timeframes import duration_text

EVENT_COUNT = "event_count"
OHLCV_COUNT = "ohlcv_count"


@dataclass(frozen=True)
class Step:
    """One node: an operator over earlier steps, a column, or a constant."""

    node: Expr
    inputs: tuple[int, ...]
    on_events: bool


@dataclass(frozen=True)
class Plan:
    """What the engine runs for a feature set.

    `features` and `flags` are the steps that hold them; `event_count` (of the longest window, None for a set without events) and
    `ohlcv_count` likewise. `free[i]` lists the steps whose values nobody needs after step `i`.
    """

    feature_set: FeatureSet
    steps: tuple[Step, ...]
    features: tuple[int, ...]
    flags: tuple[int, ...]
    event_count: int | None
    ohlcv_count: int
    free: tuple[tuple[int, ...], ...]

    @property
    def lookback(self) -> int:
        """Bars that a vector depends on, its own included."""
        return self.feature_set.lookback

    @property
    def bar_columns(self) -> tuple[str, ...]:
        """The bar columns that the plan reads."""
        return tuple(s.node.name for s in self.steps if s.node.operator is None and s.node.domain == BARS and s.node.name)


def plan(feature_set: FeatureSet) -> Plan:
    """The plan of a feature set. Equal parts of its features and flags are one step."""
    counts = [bars.count(feature_set.lookback)]
    if feature_set.event_window:
        counts.append(events.window(duration_text(feature_set.event_window)).count())
    roots = (*feature_set.roots, *counts)
    nodes = list(walk(*roots))
    index = {node: i for i, node in enumerate(nodes)}
    steps = tuple(Step(n, tuple(index[i] for i in n.inputs), isinstance(n.domain, int)) for n in nodes)
    kept = {index[root] for root in roots}
    last_use = {i: s for s, step in enumerate(steps) for i in step.inputs if i not in kept}
    free: list[list[int]] = [[] for _ in steps]
    for step, last in last_use.items():
        free[last].append(step)
    return Plan(
        feature_set=feature_set,
        steps=steps,
        features=tuple(index[e] for e in feature_set.features.values()),
        flags=tuple(index[e] for e in feature_set.flags.values()),
        event_count=index[counts[1]] if feature_set.event_window else None,
        ohlcv_count=index[counts[0]],
        free=tuple(tuple(f) for f in free),
    )
