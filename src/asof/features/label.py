"""What tells a label from a feature: its type."""

from __future__ import annotations

WHY = "it is made of bars that come after the vector's own, so as a feature it would look ahead"


class Label:
    """Something that is to be foretold: made of what comes after a bar. No expression, so it can be no part of a feature.

    `horizon` is how many bars ahead it looks.
    """

    horizon: int
