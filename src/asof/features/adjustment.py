"""How values change when they are seen from a later bar, behind splits and dividends: as some power of the factors, or not simply at all.

A price as it is seen after a 2:1 split is half of what it was, a volume twice; their ratio to another price or volume is what it was. So
every expression has a *scale*: the powers of the price factor and of the volume factor that it is multiplied with. Windows are rescaled
by it, each value to the bar that they are seen from. What has no scale (a price plus 1, the logarithm of a price) can be a feature, and
cannot be in a window: what it would have been, seen from later, does not follow from what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from asof.operators import Scaling

Powers = tuple[int, int]
"""The powers of the price factor and of the volume factor."""
Scale = Powers | Literal["any", "none"]
"""`any` is that of the constant 0, which is the same however it is scaled; `none` is that of what no factor rescales."""

FREE: Powers = (0, 0)
ANY: Literal["any"] = "any"
NONE: Literal["none"] = "none"

ADJUSTED: dict[str, Powers] = {"open": (1, 0), "high": (1, 0), "low": (1, 0), "close": (1, 0), "volume": (0, 1)}
"""The columns of `bars.adjusted`, and how they scale."""
PREFIX = "adjusted."
"""What the names of their columns begin with."""
PRICE_FACTOR, VOLUME_FACTOR = "price_factor", "volume_factor"
"""The columns of the panel that tell what the actions between a bar and the one before it multiply earlier prices and volumes with."""


def rescales(scale: Scale) -> bool:
    """Whether a value of this scale is another one when it is seen from behind an action."""
    return scale not in (FREE, ANY)


def alike(scales: Sequence[Scale]) -> Scale:
    """The scale of all, where they have one: 0 has any."""
    if NONE in scales:
        return NONE
    known = {scale for scale in scales if scale != ANY}
    return ANY if not known else known.pop() if len(known) == 1 else NONE


def scale_of(scaling: Scaling, scales: Sequence[Scale]) -> Scale:
    """The scale of what an operator makes of inputs with these scales."""
    if scaling is Scaling.PRESENCE:
        return FREE
    if not any(map(rescales, scales)):
        return ANY if scaling is Scaling.SAME and alike(scales) == ANY else FREE
    return NONE if NONE in scales else SCALES[scaling](scales)


def _comparison(scales: Sequence[Scale]) -> Scale:
    return NONE if alike(scales) == NONE else FREE


def _weighted(scales: Sequence[Scale]) -> Scale:
    return NONE if rescales(scales[1]) else scales[0]


def _times(a: Scale, b: Scale, power: int) -> Scale:
    """The scale of `a` times `b` to a power."""
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        return ANY
    return a[0] + power * b[0], a[1] + power * b[1]


def _root(scales: Sequence[Scale]) -> Scale:
    (scale,) = scales
    even = isinstance(scale, tuple) and not any(power % 2 for power in scale)
    return (scale[0] // 2, scale[1] // 2) if isinstance(scale, tuple) and even else NONE


SCALES: dict[Scaling, Callable[[Sequence[Scale]], Scale]] = {
    Scaling.UNKNOWN: lambda _: NONE,
    Scaling.SAME: alike,
    Scaling.COMPARISON: _comparison,
    Scaling.SIGN: lambda _: FREE,
    Scaling.PRODUCT: lambda scales: _times(scales[0], scales[1], 1),
    Scaling.QUOTIENT: lambda scales: _times(scales[0], scales[1], -1),
    Scaling.SQUARE: lambda scales: _times(scales[0], scales[0], 1),
    Scaling.ROOT: _root,
    Scaling.CHOICE: lambda scales: alike(scales[1:]),
    Scaling.WEIGHTED: _weighted,
}
"""What each kind of operator makes of scales of which one at least is not free, and none is `none`."""
