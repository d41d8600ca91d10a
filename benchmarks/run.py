"""Run the benchmarks: `python benchmarks/run.py [--scale 0.1] [--only fs_v1] [--json FILE] [--markdown docs/performance.md]`.

Each one runs ours and its peers in turns and reports medians, so the ratios of one run may be compared; the seconds of two machines
may not. It ends with 0 whatever the figures are.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import alpha158
import backfill
import book
import cold
import cross
import cycle
import events
import factors
import fs_v1
import history
import imports
import join
import memory
import postgres_io
import proof
import replica
import serve
import stream
import subscribers
from measure import Figure, Result, Settings

import asof

BENCHMARKS: dict[str, Callable[[Settings], Result]] = {
    "fs_v1": fs_v1.run,
    "alpha158": alpha158.run,
    "cross": cross.run,
    "book": book.run,
    "factors": factors.run,
    "join": join.run,
    "history": history.run,
    "backfill": backfill.run,
    "postgres_write": postgres_io.write,
    "postgres_read": postgres_io.read,
    "events": events.run,
    "cycle": cycle.fs_v1,
    "cycle_alpha158": cycle.alpha158,
    "stream": stream.run,
    "serve": serve.run,
    "replica": replica.run,
    "subscribers": subscribers.run,
    "known_at": proof.known_at,
    "correction": proof.correction,
    "replay": proof.replay,
    "memory": memory.run,
    "imports": imports.run,
    "cold": cold.run,
}
"""Every benchmark by its name."""

PACKAGES = ("numpy", "numba", "pyarrow", "duckdb", "psycopg", "confluent-kafka", "polars", "pandas", "adbc-driver-postgresql", "pgpq")
COLUMNS = ("", "seconds", "rows/s", "x ours", "")
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
NEW_PAGE = f"# Performance\n\n{BEGIN}\n{END}\n"


def main() -> None:
    """The command."""
    chosen = _arguments()
    page = _page(chosen.markdown) if chosen.markdown else ""
    facts = _facts(chosen.scale, chosen.repeat)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    results = {}
    for name in chosen.only or BENCHMARKS:
        with _work_folder() as folder:
            results[name] = BENCHMARKS[name](Settings(chosen.scale, chosen.repeat, folder, chosen.picture))
        print(f"\n{_as_text(results[name])}", flush=True)
    if chosen.json:
        found = {name: dataclasses.asdict(result) for name, result in results.items()}
        chosen.json.write_text(json.dumps({"facts": facts, "results": found}, indent=2) + "\n")
    if chosen.markdown:
        chosen.markdown.write_text(_with_figures(page, _as_markdown(facts, results)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The benchmarks, ours beside its peers.")
    parser.add_argument(
        "--scale", type=_positive(float), default=1.0, help="how much of the full data; 1.0 takes a while, and gigabytes of memory and disk"
    )
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="one benchmark; may be given again")
    parser.add_argument("--repeat", type=_positive(int), default=3, help="rounds; the median counts")
    parser.add_argument("--json", type=_absolute, help="write the figures there")
    parser.add_argument("--markdown", type=_absolute, help=f"write the figures into that page, between {BEGIN} and {END}")
    parser.add_argument("--picture", type=_picture, help="draw the histogram of `stream` there, a .png or .svg; needs matplotlib")
    return parser.parse_args()


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _picture(text: str) -> Path:
    if not text.endswith((".png", ".svg")):
        raise argparse.ArgumentTypeError(f"{text} is neither a .png nor a .svg")
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError('a picture needs matplotlib: pip install "asof[plot]"')
    return _absolute(text)


def _positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        found = kind(text)
        if not 0 < found < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return found

    return number


def _page(path: Path) -> str:
    """The page that figures go into; asked for before anything is measured, so that no figures are lost for want of a place."""
    page = path.read_text() if path.exists() else NEW_PAGE
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        sys.exit(f"{path} has no place for figures: give it one line {BEGIN} and below it one line {END}")
    return page


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder that goes away again, and is the current one meanwhile: no asof.toml or setting of the caller's is used.

    Processes that a benchmark starts import the asof that this one has imported.
    """
    before = Path.cwd()
    os.environ["PYTHONPATH"] = str(Path(asof.__file__).parents[1])
    for name in [n for n in os.environ if n.startswith(("ASOF_", "FEATURE_", "PIPELINE_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory(prefix="asof-bench-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def _facts(scale: float, repeat: int) -> dict[str, str]:
    """What the figures depend on."""
    versions = (f"Python {platform.python_version()}", f"asof {asof.__version__}", *(f"{name} {version(name)}" for name in PACKAGES))
    load = f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {_processor()}",
        "load before": load,
        "scale": f"{scale:g}, medians of {repeat}",
        "versions": ", ".join(versions),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _rows(result: Result) -> list[tuple[str, ...]]:
    """The table of a result, as text."""
    ours = result.figures[0].seconds
    return [_row(figure, ours) for figure in result.figures]


def _row(figure: Figure, ours: float | None) -> tuple[str, ...]:
    seconds = f"{figure.seconds:.3f}" if figure.seconds is not None else ""
    ratio = f"{figure.seconds / ours:.2f}" if figure.seconds is not None and ours else ""
    rate = f"{figure.rate:,.0f}" if figure.rate else ""
    return figure.name, seconds, rate, ratio, ", ".join(filter(None, (figure.value, figure.note)))


def _verdict(result: Result) -> str:
    if result.met is None:
        return f"{result.measured}; the design sets no target"
    return f"{result.measured}; target {result.target}: {'met' if result.met else 'not met'}"


def _as_text(result: Result) -> str:
    lines = [COLUMNS, *_rows(result)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(COLUMNS))]
    table = [
        "  ".join(cell.rjust(width) if 0 < k < 4 else cell.ljust(width) for k, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(
        [result.title, *(f"  {line.rstrip()}" for line in table), f"  {_verdict(result)}", *(f"  ! {p}" for p in result.problems)]
    )


def _as_markdown(facts: dict[str, str], results: dict[str, Result]) -> str:
    parts = ["\n".join(f"- {name}: {value}" for name, value in facts.items())]
    for name, result in results.items():
        head = f"| {' | '.join(COLUMNS)} |\n|---|---:|---:|---:|---|"
        table = "\n".join([head, *(f"| {' | '.join(row)} |" for row in _rows(result))])
        problems = [f"Problem: {problem}" for problem in result.problems]
        parts += [f"### {name}", result.title, table, _verdict(result), *problems]
    return "\n\n".join(parts)


def _with_figures(page: str, figures: str) -> str:
    """The page with what stands between its two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


if __name__ == "__main__":
    main()
