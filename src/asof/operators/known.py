"""The operators that expressions may use, by name: those that ship, and people's own, which are added as their files are loaded."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from asof.errors import DefinitionError
from asof.operators import OPERATORS, SECTION_SHAPES
from asof.operators.operator import Operator

GROUP = "asof.operators"
"""The entry points whose modules define operators; they are loaded when a name is asked for that is not known."""


class Known:
    """Operators by their name, what they work on (`Operator.kind`) and how many inputs they take."""

    def __init__(self, shipped: Iterable[Operator]) -> None:
        self.shipped = {(o.name, o.kind, len(o.inputs)): o for o in shipped}
        self.shipped_names = tuple(dict.fromkeys(o.name for o in self.shipped.values()))
        self.inputs = frozenset(i for o in self.shipped.values() for i in o.inputs)
        self.own: dict[str, Operator] = {}
        self._lock = threading.Lock()
        self._looked = False

    def find(self, name: str, kind: str, arity: int) -> Operator | None:
        """The operator of this name and kind that takes so many inputs."""
        if name in self.shipped_names:
            return self.shipped.get((name, kind, arity))
        there = self.named(name)
        return there if there and (there.kind, len(there.inputs)) == (kind, arity) else None

    def named(self, name: str) -> Operator | None:
        """The own operator of a name; entry points are looked at where it is not there yet."""
        if name not in self.own and name not in self.shipped_names:
            self._load_entry_points()
        return self.own.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all operators."""
        return (*self.shipped_names, *self.own)

    def add(self, operator: Operator) -> Operator:
        """Make an own operator known; one that is there already, alike in all, stays, so that equal expressions stay one.

        A definition replaces an earlier one of the same module. Raises `DefinitionError` where the name is another module's.
        """
        with self._lock:
            there = self.own.get(operator.name)
            if there and there.meaning == operator.meaning:
                return there
            if there and there.kernel.__module__ != operator.kernel.__module__:
                raise DefinitionError(
                    f"the operator {operator.name} of {operator.kernel.__module__} is already defined otherwise by"
                    f" {there.kernel.__module__}: give one of them another name"
                )
            self.own[operator.name] = operator
        return operator

    def _load_entry_points(self) -> None:
        """Import, once, what packages name under `asof.operators`."""
        from importlib.metadata import entry_points  # noqa: PLC0415  # slow, and only for a name that is not known

        with self._lock:
            looked, self._looked = self._looked, True
        for point in () if looked else entry_points(group=GROUP):
            try:
                point.load()
            except (ImportError, AttributeError) as error:
                raise DefinitionError(f"the entry point {point.name} = {point.value} of {GROUP} cannot be loaded: {error}") from error


KNOWN = Known(o for o in OPERATORS if o.shape not in SECTION_SHAPES)
"""The operators of this process; those across instruments have a file of their own (`asof.features.across`)."""
