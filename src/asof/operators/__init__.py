"""The primitive operators: a file per family, each with its kernels and its entries; this is the one table of them all."""

from asof.operators import across, arithmetic, logic, moments, ordered, points, present, rolling, staged, trend, windows
from asof.operators.operator import (
    BAR_SHAPES,
    EVENT_SHAPES,
    POINT_SHAPES,
    SECTION_SHAPES,
    STAGED_SHAPES,
    Operator,
    Param,
    Scaling,
    Shape,
    of_chosen,
)

FAMILIES = {
    "arithmetic": arithmetic,
    "logic": logic,
    "rolling": rolling,
    "ordered": ordered,
    "moments": moments,
    "trend": trend,
    "present": present,
    "windows": windows,
    "points": points,
    "staged": staged,
    "across": across,
}
"""The family files, in the order in which the reference shows them."""

OPERATORS: tuple[Operator, ...] = tuple(operator for family in FAMILIES.values() for operator in family.OPERATORS)
"""Every operator of the language."""

FORMS: tuple[Operator, ...] = (*OPERATORS, *(of_chosen(operator) for operator in OPERATORS if operator.shape in EVENT_SHAPES))
"""The same, and those over the points of a window once more, with `where=`."""

__all__ = [
    "BAR_SHAPES",
    "EVENT_SHAPES",
    "FAMILIES",
    "FORMS",
    "OPERATORS",
    "POINT_SHAPES",
    "SECTION_SHAPES",
    "STAGED_SHAPES",
    "Operator",
    "Param",
    "Scaling",
    "Shape",
]
