"""Durations and timeframes: `1m`, `4h`, `1d` as text and as microseconds."""

import re

from asof.errors import DefinitionError, did_you_mean

UNITS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
"""Microseconds in each unit that a duration can be written in."""

_DURATION = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,6})([smhd])")
_COMMON = ("1s", "5s", "1m", "5m", "15m", "30m", "1h", "4h", "1d")


def duration(text: str) -> int:
    """Microseconds of a duration such as `90s`, `60m`, `1h` or `1d`."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise DefinitionError(f"duration {text!r} is not one of <n>s, <n>m, <n>h, <n>d, such as '1h'")
    return int(found[1]) * UNITS[found[2]]


def duration_text(microseconds: int) -> str:
    """The shortest text of a duration: the largest unit that divides it."""
    unit = next(name for name, size in reversed(UNITS.items()) if microseconds % size == 0)
    return f"{microseconds // UNITS[unit]}{unit}"


def timeframe(text: str) -> int:
    """Microseconds of a bar's timeframe: `<n>s`, `<n>m`, `<n>h` or `<n>d`."""
    found = _TIMEFRAME.fullmatch(text) if isinstance(text, str) else None
    if not found:
        hint = did_you_mean(str(text), _COMMON)
        raise DefinitionError(f"timeframe {text!r} is not one of <n>s, <n>m, <n>h, <n>d{hint}")
    return int(found[1]) * UNITS[found[2]]


def grid(text: str) -> int:
    """The step, in microseconds, that an `s`, `m` or `h` timeframe's bars must open on; 0 for days, which open with their session."""
    return 0 if text.endswith("d") else timeframe(text)
