"""The texts of events, which expressions compare: what is a text in a record is 1 or 0 in an expression."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from asof.errors import DefinitionError, UnknownName
from asof.features.spoken import spoken

if TYPE_CHECKING:
    from asof.features.expression import Expr

EVENT_TEXTS = {
    "category": "what the event is about, such as `earnings`",
    "source": "the kind of its source, such as `twitter`",
    "source_name": "its source by name",
}
"""The texts that an event has."""
COMPARISON = re.compile(r'(category|source|source_name) == "([^"\\\x00-\x1f\x7f-\x9f]{1,200})"')
"""The name of the column that a comparison is: which text, and what it shall be."""


@spoken
class EventText:
    """A text of the events of a window. It can be compared with a text, which gives 1 or 0, and is missing where an event has none."""

    def __init__(self, name: str, column: Callable[[str], Expr]) -> None:
        self._name = name
        self._column = column

    def __eq__(self, text: object) -> Expr:  # type: ignore[override]  # builds a comparison, as that of expressions does
        comparison = f'{self._name} == "{text}"'
        if isinstance(text, (list, tuple, set, frozenset)):
            raise DefinitionError(f"{self._name} is compared with one text; with several: {self._name}.is_in('earnings', 'macro')")
        if not isinstance(text, str) or not COMPARISON.fullmatch(comparison):
            raise DefinitionError(f"{self._name} is compared with a text of 1 to 200 letters without quotes or backslashes, not {text!r}")
        return self._column(comparison)

    def __ne__(self, text: object) -> Expr:  # type: ignore[override]  # as above
        return ~(self == text)

    def is_in(self, *texts: str) -> Expr:
        """1 where it is one of these texts, else 0."""
        if not texts:
            raise DefinitionError(f"{self._name}.is_in() is given no texts")
        first, *more = texts
        found = self == first
        for text in more:
            found |= self == text
        return found

    __hash__ = None  # type: ignore[assignment]  # two that are equal need not be one

    def __bool__(self) -> bool:
        raise DefinitionError(self._refusal("no truth value"))

    def _refused(self, *_: object) -> Expr:
        raise DefinitionError(self._refusal("no numbers and no order"))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refused
    __pow__ = __rpow__ = __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __xor__ = __rxor__ = __abs__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __and__ = __rand__ = __or__ = __ror__ = __invert__ = _refused

    def __contains__(self, text: object) -> bool:
        raise DefinitionError(self._refusal("no texts in it"))

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        raise UnknownName(self._refusal(f"no {name!r}"))

    def _refusal(self, what: str) -> str:
        return f"{self._name} is a text and has {what}: compare it, such as {self._name} == {json.dumps('earnings')}"

    def __repr__(self) -> str:
        return f"<{self._name} of events: compare it with a text>"


def comparison(name: str) -> tuple[str, str] | None:
    """Which text a column compares, and with what; None for a column of another kind."""
    found = COMPARISON.fullmatch(name)
    return (found[1], found[2]) if found else None
