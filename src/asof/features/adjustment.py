"""How values change when they are seen from a later bar, behind splits and dividends: as some power of the factors, or not simply at all.

A price as it is seen after a 2:1 split is half of what it was, a volume twice; their ratio to another price or volume is what it was. So
every expression has a *scale*: the powers of the price factor and of the volume factor that it is multiplied with. Windows are rescaled
by it, each value to the bar that they are seen from. What has no scale (a price plus 1, the logarithm of a price) can be a feature, and
cannot be in a window: what it would have been, seen from later, does not follow from what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def alike(scales: Sequence[Scale]) -> Scale:
    """The scale of all, where they have one: 0 has any."""
    if NONE in scales:
        return NONE
    known = {scale for scale in scales if scale != ANY}
    return ANY if not known else known.pop() if len(known) == 1 else NONE


def scale_of(scaling: Scaling, scales: Sequence[Scale]) -> Scale:
    """The scale of what an operator makes of inputs with these scales."""
    if scaling is Scaling.PRESENCE or all(scale in (FREE, ANY) for scale in scales):
        return ANY if ANY in scales and scaling in (Scaling.SAME, Scaling.PRODUCT) and alike(scales) == ANY else FREE
    if NONE in scales:
        return NONE
    if scaling is Scaling.SAME:
        return alike(scales)
    if scaling is Scaling.COMPARISON:
        return NONE if alike(scales) == NONE else FREE
    if scaling is Scaling.SIGN:
        return FREE
    if scaling is Scaling.CHOICE:
        return alike(scales[1:])
    if scaling is Scaling.WEIGHTED:
        return scales[0] if scales[1] in (FREE, ANY) else NONE
    return _power(scaling, scales)


def _power(scaling: Scaling, scales: Sequence[Scale]) -> Scale:
    """The scale of a product, a quotient, a square or a root."""
    if ANY in scales:
        return ANY
    (p, v), *more = (scale for scale in scales if isinstance(scale, tuple))
    if scaling is Scaling.PRODUCT:
        return p + more[0][0], v + more[0][1]
    if scaling is Scaling.QUOTIENT:
        return p - more[0][0], v - more[0][1]
    if scaling is Scaling.SQUARE:
        return 2 * p, 2 * v
    if scaling is Scaling.ROOT and p % 2 == 0 and v % 2 == 0:
        return p // 2, v // 2
    return NONE
