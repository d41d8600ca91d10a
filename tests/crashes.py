"""Commands that take a second or two, for the tests that end them in the middle."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from asof.cli.app import run
from tests.processes import start

COMMANDS = {
    "ingest": ("ingest", "bars", "one.csv", "two.csv", "-t", "1m"),
    "backfill": ("backfill", "fs_v1", "-t", "1m", "--memory", "256MB", "--threads", "1"),
}
"""The commands that are ended in the middle. Each works in several transactions: a file, or a part of the bars."""

INSTRUMENTS, BARS = 30, 10_000
READY = "import sys; from asof.cli.app import run; sys.stderr.write('ready\\n'); sys.stderr.flush(); run()"


def bars(seed: int) -> pa.Table:
    """Minute bars; another seed has other prices for some of the same bars, and a few rows that must be refused."""
    rng, count = np.random.default_rng(1), INSTRUMENTS * BARS
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.001, count))), 4)
    other = np.random.default_rng(seed).random(count)
    close = np.where(other < 0.3, close + seed, close)
    minutes = np.tile(np.arange(BARS, dtype=np.int64), INSTRUMENTS) * 60_000_000 + 1_700_000_040_000_000
    return pa.table(
        {
            "instrument_id": [f"I{n:02d}" for n in range(INSTRUMENTS) for _ in range(BARS)],
            "ts": pa.array(minutes).cast(pa.timestamp("us", tz="UTC")),
            "close": np.where(other > 0.9999, np.inf, close),
        }
    )


@dataclass
class Work:
    """For each command a folder in which it can be run, how long it takes, and what the store holds after it."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    expected: dict[str, dict[str, list[tuple[object, ...]]]] = field(default_factory=dict)

    def copy(self, name: str, where: Path) -> Path:
        """The folder as it is before the command."""
        return shutil.copytree(self.folder / name, where / name)


def in_process(folder: Path, name: str) -> None:
    """The command, run here and to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["asof", *COMMANDS[name], "--json"])
        with pytest.raises(SystemExit) as end:
            run()
        assert end.value.code == 0


def started(folder: Path, name: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which has just begun its work."""
    process = start([sys.executable, "-c", READY, *COMMANDS[name], "--json"], folder)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    return process


def make_work(folder: Path) -> Work:
    """A store with older prices before the ingestion, one with bars before the backfill; each command run once to its end."""
    work = Work(folder)
    before = folder / "ingest"
    before.mkdir()
    for file, seed in (("old.csv", 2), ("one.csv", 3), ("two.csv", 4)):
        rows = bars(seed)
        half = len(rows) // 2
        chosen = rows.slice(half if file == "two.csv" else 0, half) if file != "old.csv" else rows.slice(half // 2, half)
        pa.csv.write_csv(chosen, before / file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(before)
        patch.setitem(COMMANDS, "old", ("ingest", "bars", "old.csv", "-t", "1m"))
        in_process(before, "old")
    for name in ("ingest", "backfill"):
        done = work.copy(name, folder / "done")
        began = time.perf_counter()
        in_process(done, name)
        work.seconds[name] = time.perf_counter() - began
        work.expected[name] = contents(done)
        if name == "ingest":
            shutil.copytree(done, folder / "backfill")
    return work


def contents(folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """How many rows each table holds, and a hash of them, without the times at which they were written."""
    unseen = ("known_from", "known_to", "computed_at", "detected_at", "created_at", "applied_at")
    found = {}
    with duckdb.connect(str(folder / "asof.duckdb"), read_only=True) as connection:
        for schema, table in connection.execute("SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL").fetchall():
            rows = connection.table(f"{schema}.{table}")
            names = ", ".join(f'"{name}"' for name in rows.columns if name not in unseen)
            found[f"{schema}.{table}"] = rows.aggregate(f"count(*), bit_xor(hash({names})), sum(hash({names}))").fetchall()
    return found
