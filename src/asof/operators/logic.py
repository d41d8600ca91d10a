"""Logic operators: they look at missing values instead of passing them through. True is 1, false 0, and NaN is unknown."""

import math

from asof.operators.operator import Operator, Scaling, Shape


def both(a, b):
    """1 where a and b are true; 0 where either is false, even beside a missing one (SQL's logic); else missing."""
    if a == 0.0 or b == 0.0:
        return 0.0
    return math.nan if a != a or b != b else (math.inf if math.isinf(a) or math.isinf(b) else 1.0)


def either(a, b):
    """1 where a or b is true, even beside a missing one (SQL's logic); 0 where both are false; else missing."""
    if (a != 0.0 and math.isfinite(a)) or (b != 0.0 and math.isfinite(b)):
        return 1.0
    return math.nan if a != a or b != b else (math.inf if math.isinf(a) or math.isinf(b) else 0.0)


def invert(x):
    """1 where x is false, 0 where it is true; missing where x is missing."""
    return x if not math.isfinite(x) else (1.0 if x == 0.0 else 0.0)


def where(condition, a, b):
    """a where the condition is true, b where it is false; missing where the condition is. The branch not taken does not matter."""
    return condition if not math.isfinite(condition) else (a if condition != 0.0 else b)


def when(x, condition):
    """x where the condition is true; missing where it is false or missing."""
    if math.isinf(condition):
        return condition
    return x if condition == condition and condition != 0.0 else math.nan


def is_missing(x):
    """1 where x is missing, else 0; never missing."""
    return 1.0 if x != x else 0.0


OPERATORS = (
    Operator("and", Shape.LOGIC, both, ("a", "b"), symbol="&", scaling=Scaling.SIGN),
    Operator("or", Shape.LOGIC, either, ("a", "b"), symbol="|", scaling=Scaling.SIGN),
    Operator("not", Shape.LOGIC, invert, symbol="~", scaling=Scaling.SIGN),
    Operator("where", Shape.LOGIC, where, ("condition", "a", "b"), scaling=Scaling.CHOICE),
    Operator("when", Shape.LOGIC, when, ("x", "condition"), scaling=Scaling.WEIGHTED),
    Operator("is_missing", Shape.LOGIC, is_missing, scaling=Scaling.PRESENCE),
)
