"""KunQuant and pyqlib over the bars of `alpha158`: run by `alpha158.py` and `factors.py` with a Python that has them.

They bring some 150 packages along, so they have an environment of their own: `pip install pyqlib KunQuant` there, and then
`ASOF_BENCH_PEERS=that/bin/python make bench`. KunQuant compiles its factors with g++, off the clock.

`python quant_peers.py WHAT BARS.npz FOLDER` prints the seconds that WHAT took: `kunquant`, `kunquant-1` (one thread), `qlib`, or `qlib-14`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

PYTHON = os.environ.get("ASOF_BENCH_PEERS")
"""The Python that has the peers."""
COLUMNS = ("open", "high", "low", "close", "volume")
FACTORS = 14


def seconds(peers: dict[str, str], bars: pa.Table, folder: Path) -> dict[str, float]:
    """What peers take, by their names, over bars of which each instrument has as many; nothing where there are no peers."""
    if not PYTHON:
        return {}
    instruments = len(bars["instrument_id"].unique())
    path = folder / "bars.npz"
    np.savez(path, **{name: bars[name].to_numpy().reshape(instruments, -1).T for name in COLUMNS})
    return {name: _seconds_of(what, path) for name, what in peers.items()}


def _seconds_of(what: str, bars: Path) -> float:
    with tempfile.TemporaryDirectory(dir=bars.parent) as folder:
        done = subprocess.run([PYTHON, __file__, what, str(bars), folder], check=True, stdout=subprocess.PIPE)  # type: ignore[list-item]
    return float(json.loads(done.stdout.splitlines()[-1]))


def kunquant(bars: dict[str, np.ndarray], folder: Path, threads: int) -> Callable[[], object]:
    """Its own Alpha158, in float64, with its results in memory."""
    from KunQuant.Driver import KunCompilerConfig
    from KunQuant.jit import cfake
    from KunQuant.Op import Builder, Input, Output
    from KunQuant.predefined.Alpha158 import AllData
    from KunQuant.runner import KunRunner
    from KunQuant.Stage import Function

    names = (*COLUMNS, "amount")
    builder = Builder()
    with builder:
        data = AllData(**{name: Input(name) for name in names})
        prices = [("OPEN", data.open), ("HIGH", data.high), ("LOW", data.low), ("VWAP", data.vwap)]
        factors, labels = data.build({"kbar": {}, "price": {"windows": [0], "feature": prices}, "rolling": {}})
        for factor, label in zip(factors, labels, strict=True):
            Output(factor, label)
    configuration = KunCompilerConfig(dtype="double", input_layout="TS", output_layout="TS")
    library = cfake.compileit([("alpha158", Function(builder.ops), configuration)], "alpha158", cfake.CppCompilerConfig())
    module = library.getModule("alpha158")
    executor = KunRunner.createMultiThreadExecutor(threads) if threads > 1 else KunRunner.createSingleThreadExecutor()
    inputs = {name: np.ascontiguousarray(bars[name]) for name in COLUMNS}
    inputs["amount"] = inputs["volume"] * (inputs["high"] + inputs["low"] + inputs["close"]) / 3
    KunRunner.runGraph(executor, module, inputs, 0, len(inputs["close"]))  # the first run is slower
    return lambda: (library, KunRunner.runGraph(executor, module, inputs, 0, len(inputs["close"])))


def qlib(bars: dict[str, np.ndarray], folder: Path, count: int | None) -> Callable[[], object]:
    """The factors of its own Alpha158, all or some, loaded through `D.features` from files in its format."""
    import qlib as theirs
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data import D

    root = folder / "qlib"
    days = [str(np.datetime64("2005-01-03") + day) for day in range(len(bars["close"]))]
    names = [f"I{number:04d}" for number in range(bars["close"].shape[1])]
    (root / "calendars").mkdir(parents=True)
    (root / "calendars" / "day.txt").write_text("\n".join(days))
    (root / "instruments").mkdir()
    (root / "instruments" / "all.txt").write_text("\n".join(f"{name}\t{days[0]}\t{days[-1]}" for name in names))
    columns = {name: bars[name] for name in COLUMNS} | {"vwap": (bars["high"] + bars["low"] + bars["close"]) / 3}
    for number, name in enumerate(names):
        place = root / "features" / name.lower()
        place.mkdir(parents=True)
        for column, values in columns.items():
            np.append(0, values[:, number]).astype("<f4").tofile(place / f"{column}.day.bin")
    theirs.init(provider_uri=str(root), expression_cache=None, dataset_cache=None, logging_level=40)
    fields, _ = Alpha158DL.get_feature_config()
    fields = fields if count is None else fields[:: len(fields) // count][:count]
    return lambda: D.features(names, fields, days[0], days[-1], disk_cache=0)


PEERS: dict[str, Callable[[dict[str, np.ndarray], Path], Callable[[], object]]] = {
    "kunquant": lambda bars, folder: kunquant(bars, folder, os.cpu_count() or 1),
    "kunquant-1": lambda bars, folder: kunquant(bars, folder, 1),
    "qlib": lambda bars, folder: qlib(bars, folder, None),
    "qlib-14": lambda bars, folder: qlib(bars, folder, FACTORS),
}
"""What can be asked for: each prepares itself, and answers what is timed."""


if __name__ == "__main__":
    with np.load(sys.argv[2]) as given:
        run = PEERS[sys.argv[1]](dict(given), Path(sys.argv[3]))
    began = time.perf_counter()
    answer = run()
    print(f"\n{json.dumps(time.perf_counter() - began)}")
