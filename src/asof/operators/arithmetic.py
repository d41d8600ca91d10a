"""Row operators: arithmetic, comparison, and the functions of one number.

Each kernel sees finite numbers only and answers with one; the driver passes missing values and errors through.
`exp` and `log` are computed here in plain IEEE arithmetic, because the C library's differ in the last bit between processors.
"""

import math

from asof.operators.operator import Operator, Param, Scaling, Shape


def add(a, b):
    """a + b."""
    return a + b


def subtract(a, b):
    """a - b."""
    return a - b


def multiply(a, b):
    """a * b."""
    return a * b


def divide(a, b):
    """a / b; a division by zero is an error."""
    return a / b if b != 0.0 else math.inf


def negate(x):
    """-x."""
    return -x


def absolute(x):
    """|x|."""
    return abs(x)


def sign(x):
    """-1, 0 or 1."""
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else 0.0)


def sqrt(x):
    """The square root, correctly rounded; an error below zero."""
    return math.sqrt(x) if x >= 0.0 else math.inf


LN2_HIGH = 0.6931471803691238
LN2_LOW = 1.9082149292705877e-10


def exp(x):
    """e to the power of x, within 2 units in the last place: x = k ln 2 + r, a Taylor sum in r, and a scaling by 2**k."""
    if x > 709.782712893384:
        return math.inf
    if x < -745.2:
        return 0.0
    k = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    total = 1.0
    for i in range(14, 0, -1):
        total = 1.0 + r * total / i
    half = k // 2
    return math.ldexp(math.ldexp(total, int(half)), int(k - half))


def log(x):
    """The natural logarithm, within 2 units in the last place; an error at zero and below.

    x = m 2**k with m near 1, and log m = 2 artanh((m - 1) / (m + 1)) as a series.
    """
    if x <= 0.0:
        return math.inf
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m = m * 2.0
        k = k - 1
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = 0.0
    for i in range(27, 1, -2):
        series = (series + 2.0 / i) * z
    # log(1 + f) = f - f*f/2 + s * (f*f/2 + series): the large part is exact, the correction small
    half = 0.5 * f * f
    return k * LN2_HIGH - ((half - (s * (half + series) + k * LN2_LOW)) - f)


def clip(x, low, high):
    """x held between low and high."""
    return low if x < low else (high if x > high else x)


def maximum(a, b):
    """The larger of a and b."""
    return b if b > a else a


def minimum(a, b):
    """The smaller of a and b."""
    return b if b < a else a


def less(a, b):
    """1 where a < b, else 0."""
    return 1.0 if a < b else 0.0


def less_equal(a, b):
    """1 where a <= b, else 0."""
    return 1.0 if a <= b else 0.0


def greater(a, b):
    """1 where a > b, else 0."""
    return 1.0 if a > b else 0.0


def greater_equal(a, b):
    """1 where a >= b, else 0."""
    return 1.0 if a >= b else 0.0


def equal(a, b):
    """1 where a equals b, else 0."""
    return 1.0 if a == b else 0.0


def not_equal(a, b):
    """1 where a differs from b, else 0."""
    return 1.0 if a != b else 0.0


_TWO = ("a", "b")

OPERATORS = (
    Operator("add", Shape.ROW, add, _TWO, symbol="+", scaling=Scaling.SAME),
    Operator("subtract", Shape.ROW, subtract, _TWO, symbol="-", scaling=Scaling.SAME),
    Operator("multiply", Shape.ROW, multiply, _TWO, symbol="*", scaling=Scaling.PRODUCT),
    Operator("divide", Shape.ROW, divide, _TWO, symbol="/", scaling=Scaling.QUOTIENT),
    Operator("negate", Shape.ROW, negate, symbol="-", scaling=Scaling.SAME),
    Operator("less", Shape.ROW, less, _TWO, symbol="<", scaling=Scaling.COMPARISON),
    Operator("less_equal", Shape.ROW, less_equal, _TWO, symbol="<=", scaling=Scaling.COMPARISON),
    Operator("greater", Shape.ROW, greater, _TWO, symbol=">", scaling=Scaling.COMPARISON),
    Operator("greater_equal", Shape.ROW, greater_equal, _TWO, symbol=">=", scaling=Scaling.COMPARISON),
    Operator("equal", Shape.ROW, equal, _TWO, symbol="==", scaling=Scaling.COMPARISON),
    Operator("not_equal", Shape.ROW, not_equal, _TWO, symbol="!=", scaling=Scaling.COMPARISON),
    Operator("abs", Shape.ROW, absolute, scaling=Scaling.SAME),
    Operator("sign", Shape.ROW, sign, scaling=Scaling.SIGN),
    Operator("sqrt", Shape.ROW, sqrt, scaling=Scaling.ROOT),
    Operator("exp", Shape.ROW, exp),
    Operator("log", Shape.ROW, log),
    Operator("maximum", Shape.ROW, maximum, _TWO, scaling=Scaling.SAME),
    Operator("minimum", Shape.ROW, minimum, _TWO, scaling=Scaling.SAME),
    Operator("clip", Shape.ROW, clip, params=(Param("low", float), Param("high", float))),
)
