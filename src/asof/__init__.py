"""asof: the feature store for markets. Define a feature once; the same bits in backfill, stream, replay and serving."""

from importlib import import_module
from typing import TYPE_CHECKING

from asof.errors import AsofError
from asof.features.across import across
from asof.features.expression import Expr, bars, events, where
from asof.features.feature_set import FeatureSet
from asof.features.library.fs_v1 import fs_v1
from asof.features.market import books, quotes, trades
from asof.features.own import operator
from asof.operators import Param

if TYPE_CHECKING:
    from asof.backtests import aligned, iter_asof
    from asof.feature_store import FeatureStore, connect
    from asof.jobs.compute import compute, resample
    from asof.jobs.leakcheck import leakcheck
    from asof.records import Frame

__version__ = "0.1.0"

_LAZY = {
    "aligned": "asof.backtests",
    "compute": "asof.jobs.compute",
    "connect": "asof.feature_store",
    "FeatureStore": "asof.feature_store",
    "iter_asof": "asof.backtests",
    "leakcheck": "asof.jobs.leakcheck",
    "resample": "asof.jobs.compute",
    "Frame": "asof.records",
}
"""The public names that need Arrow, Numba or a driver, and where they live; the only laziness there is."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'asof' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "AsofError",
    "Expr",
    "FeatureSet",
    "FeatureStore",
    "Frame",
    "Param",
    "__version__",
    "across",
    "aligned",
    "bars",
    "books",
    "compute",
    "connect",
    "events",
    "fs_v1",
    "iter_asof",
    "leakcheck",
    "operator",
    "quotes",
    "resample",
    "trades",
    "where",
]
