"""Write `docs/reference/accuracy.md`: how far every operator and indicator is from its oracle, on real prices.

`python scripts/measure_accuracy.py ../shared/data` reads the bars in that folder; the table of oracles is `tests/oracles.py`, and the
tests hold each line of it to the bound that the page shows.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.market_data import real_differences  # noqa: E402  # needs the path
from tests.oracles import (  # noqa: E402  # needs the path
    FINITE,
    INDICATORS,
    OPERATORS,
    Oracle,
    Table,
    across_differences,
    alpha158_differences,
    golden_differences,
    series,
)

PAGE = ROOT / "docs" / "reference" / "accuracy.md"
NOTICE = "<!-- Written by scripts/measure_accuracy.py from tests/oracles.py and real prices: run the script to renew it. -->"
HEAD = "| | oracle | largest difference | may be | values |\n| --- | --- | --- | --- | --- |"
INTRO = """
# Accuracy

How far every operator and every indicator is from what others compute, on real prices: the daily bars of GOOG and MSFT since 2004 and
2000, and 20,000 one-minute bars of BTCUSDT, quiet minutes among them; the features of `book_v1` on 40 minutes of the trades and quotes of
BAC, and on 56 seconds of BTCUSDT with its order books. A difference is told in parts of the oracle's value; of the price, of
100 or of 1 where digits cancel by the definition itself (`tests/oracles.py` says which). *0* means the same bits. Values are compared
wherever both have one: ours has none before its lookback is full, and is an error where a division by zero is, of which TA-Lib makes 0.
""".strip()
NOTES = """
What is left, where it is not 0, is mostly the oracle's: TA-Lib and pandas keep running sums, whose rounding depends on where the series
began. Bounds are 1e-12 where both add up the same finite window, and 1e-9 where the oracle is a recursion that has to forget its beginning.

`mfi` is not judged in windows where a typical price differs from the one before by rounding alone, which TA-Lib takes for no move, and
`stochastic_rsi` not where the relative strength stands still, so that its place in its range is made of rounding.
""".strip()


def lines(oracles: Mapping[str, Oracle], tables: list[Table]) -> Iterator[str]:
    """A line of the table for each oracle."""
    for name, oracle in oracles.items():
        found = [oracle.difference(table) for table in tables]
        yield line(name, oracle.source, max(d for d, _ in found), oracle.bound, sum(n for _, n in found))


def line(name: str, source: str, difference: float, bound: float, values: int) -> str:
    return f"| `{name}` | {source} | {shown(difference)} | {shown(bound)} | {values:,} |"


def shown(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def main() -> None:
    folder = Path(sys.argv[1])
    tables = [table for _, table in series(folder)]
    goldens = [
        line(f"{indicator} {field}", "Stock.Indicators", difference, bound, values)
        for indicator, field, difference, bound, values in golden_differences(folder)
    ]
    factors = [line(name, "pandas", difference, FINITE, values) for name, difference, values in alpha158_differences(folder)]
    with tempfile.TemporaryDirectory() as work:
        market = [
            line(name, "plain Python", difference, FINITE, values) for name, difference, values in real_differences(folder, Path(work))
        ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("TA-Lib", "pandas", "numpy"))
    across = [line(name, "pandas", *found) for name, *found in across_differences(folder)]
    sections = [
        NOTICE,
        INTRO,
        f"Oracles: {packages}, and the published goldens of Stock.Indicators.",
        "## Operators\n\n" + "\n".join([HEAD, *lines(OPERATORS, tables)]),
        "## Across instruments, 44 stocks over years and 320 over months\n\n" + "\n".join([HEAD, *across]),
        "## Indicators\n\n" + "\n".join([HEAD, *lines(INDICATORS, tables)]),
        "## Goldens of Stock.Indicators, 502 daily bars\n\n" + "\n".join([HEAD, *goldens]),
        "## Factors of alpha158, over all their lengths\n\n" + "\n".join([HEAD, *factors]),
        "## Features of book_v1, over trades, quotes and order books\n\n" + "\n".join([HEAD, *market]),
        NOTES,
    ]
    PAGE.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
