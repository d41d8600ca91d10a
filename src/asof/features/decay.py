"""Fading weights: what a span, a half-life or Wilder's n is as the share `alpha` of the newest value, and how far back weights reach."""

from __future__ import annotations

import math
import sys

from asof.errors import DefinitionError
from asof.operators.arithmetic import exp, log
from asof.operators.operator import LONGEST

LEFT_OUT = 53 * math.log(2)
"""Weights are cut where those left out come to less than 2**-53 of the whole, half a unit in the last place of a float: -ln of that."""

FINITE = sys.float_info.max
RANGES = {
    "alpha": (1e-9, 1.0),
    "span": (1.0, math.inf),
    "half_life": (0.0, math.inf),
    "wilder": (1.0, math.inf),
}
"""What each of the four ways to say it may be."""


def alpha_of(**given: float | None) -> float:
    """The share of the newest value, from one of `alpha`, `span` (2 / (span + 1)), `half_life` or `wilder` (1 / n)."""
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        raise DefinitionError(f"ewm takes one of {', '.join(RANGES)} or a gain, not {', '.join(named) or 'none of them'}")
    ((name, value),) = named.items()
    least, most = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= min(most, FINITE) or value == 0:
        limits = "above 0" if least == 0.0 else f"from {least:g}" + (f" to {most:g}" if most < math.inf else "")
        raise DefinitionError(f"ewm: {name}={value!r} is not a number {limits}")
    match name:
        case "span":
            return 2.0 / (value + 1.0)
        case "half_life":
            return float(1.0 - exp(-log(2.0) / value))
        case "wilder":
            return 1.0 / value
    return float(value)


def reach_of(alpha: float) -> int:
    """How many bars hold all of the weight but 2**-53 of it, where the newest value has the share `alpha`."""
    reach = 1 if alpha >= 1.0 else max(1, math.ceil(LEFT_OUT / -log(1.0 - alpha)))
    if reach > LONGEST:
        raise DefinitionError(
            f"ewm: weights that fade by {alpha:.0e} a bar reach {reach:,} bars back; state how far: reach={LONGEST} at most"
        )
    return reach
