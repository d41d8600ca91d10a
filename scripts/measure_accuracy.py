"""Write `docs/reference/accuracy.md`: how far every operator, indicator and set is from its oracle, on real data.

`python scripts/measure_accuracy.py ../shared/data` reads the data in that folder. What is compared is in `tests/accuracy.py` and the
oracles that it names; the tests hold each line to the bound that the page shows, and the page to having one for everything.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.accuracy import Row, rows  # noqa: E402  # needs the path

PAGE = ROOT / "docs" / "reference" / "accuracy.md"
NOTICE = "<!-- Written by scripts/measure_accuracy.py from tests/accuracy.py and real data: run the script to renew it. -->"
HEAD = "| | oracle | largest difference | may be | values |\n| --- | --- | --- | --- | --- |"
INTRO = """
# Accuracy

How far every operator, indicator and set is from what others compute, on real data: the daily bars of GOOG and MSFT since 2004 and
2000, and 20,000 one-minute bars of BTCUSDT, quiet minutes among them; 44 stocks over years, with 30,948 scored posts; 40 minutes of the
trades and quotes of BAC, and 56 seconds of BTCUSDT with its order books. A difference is told in parts of the oracle's value; of the
price, of 100 or of 1 where digits cancel by the definition itself (the oracles in `tests/` say which). *0* means the same bits. Values are
compared wherever both have one: ours has none before its lookback is full, and is an error where a division by zero is, of which TA-Lib
makes 0.
""".strip()
ABOUT = {
    "Sets": "The largest difference of all features of each set.",
    "Operators over points": (
        "Of the posts of a day before each bar of two months, those whose score is not 0 where it says `where`; their confidences are"
        " the weights."
    ),
    "Operators over higher timeframes": "Hours inside minutes.",
    "Operators across instruments": "44 stocks over years and 320 over months.",
    "Goldens of Stock.Indicators": "502 daily bars.",
    "Factors of alpha158": "Over all their lengths.",
    "Features of book_v1": "Trades, quotes and order books.",
    "Features of fs_v1": "With windows of an hour and of a day; quality flags are the same in all rows.",
    "Features of fs_v2": (
        "Those that `fs_v1` has are the same bits as there. The posts have no categories and no kinds of sources; they are given some"
        " by the hashes of their texts."
    ),
    "Features of cross_v1": "44 stocks over years.",
    "Factors of alpha360": "Over all their ages.",
    "Functions of microstructure and news": "Each makes a feature of `book_v1` or `fs_v2`, and is held to its oracle there.",
}
NOTES = """
What is left, where it is not 0, is mostly the oracle's: TA-Lib and pandas keep running sums, whose rounding depends on where the series
began. Bounds are 1e-12 where both add up the same finite window, and 1e-9 where the oracle is a recursion that has to forget its beginning.

`mfi` is not judged in windows where a typical price differs from the one before by rounding alone, which TA-Lib takes for no move, and
`stochastic_rsi` not where the relative strength stands still, so that its place in its range is made of rounding.
""".strip()


def line(row: Row) -> str:
    return f"| `{row.name}` | {row.source} | {shown(row.difference)} | {shown(row.bound)} | {row.values:,} |"


def shown(number: float) -> str:
    return f"{number:.0e}" if number else "0"


def section(heading: str, found: list[Row]) -> str:
    about = f"{ABOUT[heading]}\n\n" if heading in ABOUT else ""
    return f"## {heading}\n\n{about}" + "\n".join([HEAD, *map(line, found)])


def main() -> None:
    packages = ", ".join(f"{name} {version(name)}" for name in ("TA-Lib", "pandas", "numpy"))
    oracles = f"Oracles: {packages}, plain Python, the golden files of `fs_v1`, and the published goldens of Stock.Indicators."
    sections = [section(heading, found) for heading, found in rows(Path(sys.argv[1])).items()]
    PAGE.write_text("\n\n".join([NOTICE, INTRO, oracles, *sections, NOTES]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
