"""Data sets: training sets that are frozen into a folder of their own, and can be proved later.

1. `create` joins feature sets to entity rows as they were known at one moment, which is fixed by then.
2. It writes `data.parquet`, `manifest.json` and `SHA256SUMS` (which `sha256sum --check` reads, too) into a folder beside the place, and
   moves that there: the data set is there whole or not at all, and one that is there is never written over.
3. `verify` holds the files to their checksums, and the feature sets to the registry. Then it joins again, from what the store knew at that
   moment, and compares every bit.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from asof import __version__
from asof.calendars import NO_CALENDARS, Calendars
from asof.errors import DataError, NotFound, VersionConflict, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.jobs.ages import Age
from asof.jobs.manifest import FrozenSet, Manifest
from asof.jobs.reading import MARKS, join
from asof.jobs.verify import EXAMPLES, Difference, Verified, differs
from asof.records import Frame
from asof.stores.store import Registered, Store

FOLDER = "datasets"
"""Where data sets are, unless another folder is named."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
DATA, MANIFEST, SUMS = "data.parquet", "manifest.json", "SHA256SUMS"
ROW_GROUP = 131_072
"""Rows of a row group: part of what makes the bytes of a file."""

Wanted = Mapping[FeatureSet, tuple[str, ...]]
"""Feature sets, and which of their features are taken."""


@dataclass(frozen=True)
class Dataset:
    """A frozen training set: the folder that it is in, and its manifest."""

    folder: Path
    manifest: Manifest

    def frame(self) -> Frame:
        """Its rows: the entities' columns, then the features, each set's followed by `ts`, `available_at` and `quality_flags`."""
        return Frame(_read(self.folder / DATA))


@dataclass(frozen=True)
class ChangedFile:
    """A file that is not what its checksum says; `found` is None where it is gone."""

    file: str
    written: str
    found: str | None


@dataclass(frozen=True)
class Proof:
    """Files that were changed, or else how many rows the store gives again to the last bit, and the first that it does not.

    `rows.missing` have a vector in the data set and none in the store, `rows.extra` the other way round.
    """

    files: tuple[ChangedFile, ...]
    rows: Verified

    @property
    def right(self) -> bool:
        """Whether nothing has changed."""
        return not self.files and self.rows.right


def create(
    store: Store,
    name: str,
    entities: pa.Table,
    wanted: Wanted,
    timeframe: str,
    *,
    now: datetime,
    known_at: datetime | None = None,
    max_age: Age | None = None,
    timezone: str | None = None,
    calendars: Calendars = NO_CALENDARS,
    pipeline_version: str,
    folder: Path,
) -> Dataset:
    """Freeze a training set under a name in a folder. With one feature set the columns are those of a join; see `named` for several.

    Raises `DataError` where the name or the moment is not usable, or there is such a data set, and all that `reading.join` raises.
    """
    place = _vacant(folder, name)
    if known_at and known_at > now:
        raise DataError(f"known_at {known_at.isoformat()} is yet to come, and the store may still learn what was known by then")
    manifest = Manifest(
        name=name,
        created_at=now.astimezone(UTC),
        known_at=(known_at or now).astimezone(UTC),
        timeframe=timeframe,
        max_age=None if max_age is None else max_age.text,
        calendars={} if max_age is None or max_age.counts == "clock" else calendars.names,
        timezone=timezone,
        feature_sets=tuple(FrozenSet(s.version, s.fingerprint, s.text, features) for s, features in wanted.items()),
        entities=tuple(entities.column_names),
        columns={},
        rows=len(entities),
        pipeline_version=pipeline_version,
        asof_version=__version__,
    )
    table = _joined(store, manifest, entities.replace_schema_metadata(None))
    whole = replace(manifest, columns={field.name: str(field.type) for field in table.schema})
    with _arriving(place) as scratch:
        write_parquet(table, scratch / DATA)
        (scratch / MANIFEST).write_text(whole.json(), encoding="utf-8")
        (scratch / SUMS).write_text("".join(f"{_digest(scratch / file)}  {file}\n" for file in (DATA, MANIFEST)))
    return Dataset(place, whole)


def load(folder: Path, name: str) -> Dataset:
    """The data set of a name. Raises `NotFound` where there is none, `DataError` for a name that is none, or a broken manifest."""
    place = _there(folder, name)
    path = place / MANIFEST
    try:
        return Dataset(place, Manifest.parse(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def names(folder: Path) -> list[str]:
    """The data sets of a folder."""
    return sorted(path.parent.name for path in folder.glob(f"[!.]*/{MANIFEST}"))


def verify(store: Store, folder: Path, name: str) -> Proof:
    """Hold a data set to its checksums and to the store it was made from.

    Raises what `load` does, `NotFound` for a feature set that the store does not know, and `VersionConflict` where it knows another of
    that version.
    """
    changed = tuple(_changed(_there(folder, name)))
    if changed:
        return Proof(changed, Verified())
    dataset = load(folder, name)
    registry = store.registered()
    for one in dataset.manifest.feature_sets:
        _known(one, registry, store.url)
    frozen = _read(dataset.folder / DATA)
    if frozen.column_names != list(dataset.manifest.columns) or len(frozen) != dataset.manifest.rows:
        raise DataError(f"{dataset.folder / DATA} has not the rows and columns that its manifest names: both were changed")
    again = _joined(store, dataset.manifest, frozen.select(list(dataset.manifest.entities)))
    return Proof((), compare(dataset.manifest, frozen, again))


def compare(manifest: Manifest, frozen: pa.Table, again: pa.Table) -> Verified:
    """Two tables of the same entities, row by row, in every column that was joined to them."""
    wrong = {name: differs(frozen[name], again[name]) for name in manifest.columns if name not in manifest.entities}
    none = np.zeros(len(frozen), np.bool_)
    rows = np.logical_or.reduce([none, *wrong.values()])
    vectors = [named(manifest.feature_sets, one, "ts") for one in manifest.feature_sets]
    there, here = ([np.asarray(table[name].is_valid()) for name in vectors] for table in (frozen, again))
    missing = np.logical_or.reduce([none, *(a & ~b for a, b in zip(there, here, strict=True))])
    extra = ~missing & np.logical_or.reduce([none, *(b & ~a for a, b in zip(there, here, strict=True))])
    different = int((rows & ~missing & ~extra).sum())
    counts = len(frozen) - int(rows.sum()), different, int(missing.sum()), int(extra.sum())
    return Verified(*counts, tuple(_examples(frozen, again, wrong, rows)))


def named(sets: tuple[FrozenSet, ...], one: FrozenSet, column: str) -> str:
    """What a column of a feature set is called in a data set: by itself where there is one set, else `fs_v1__ret_1`."""
    return column if len(sets) == 1 else f"{one.version}__{column}"


def write_parquet(table: pa.Table, path: Path) -> None:
    """Parquet whose bytes follow from the table and the release of PyArrow alone. Raises `DataError` for what Parquet cannot hold."""
    options = {"compression": "zstd", "compression_level": 3, "version": "2.6", "row_group_size": ROW_GROUP}
    try:
        pa.parquet.write_table(table.combine_chunks(), path, **options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"the entities hold what Parquet cannot: {error}") from None


def _joined(store: Store, manifest: Manifest, entities: pa.Table) -> pa.Table:
    """The entities with the columns of every feature set, as the manifest says."""
    made, age = entities, None if manifest.max_age is None else Age.of(manifest.max_age)
    of, calendars = (manifest.timeframe, entities), Calendars(manifest.calendars)
    for one in manifest.feature_sets:
        definition = FeatureSet.parse(one.text)
        found = join(store, definition, *of, one.features, age, manifest.timezone, manifest.known_at, calendars)
        for column in (*one.features, *MARKS):
            name = named(manifest.feature_sets, one, column)
            if name in made.column_names:
                raise DataError(f"the entities already have {name}: rename what they hold, or leave it out")
            made = made.append_column(name, found[column])
    return made


def _known(frozen: FrozenSet, registry: Mapping[str, Registered], url: str) -> None:
    there = registry.get(frozen.version)
    if there is None:
        raise NotFound(f"{frozen.version} is not registered in {url}: verify a data set with the store that it was made from")
    if there.fingerprint != frozen.fingerprint:
        difference = FeatureSet.parse(frozen.text).difference(there.text) or "the meaning of an operator has changed"
        raise VersionConflict(
            f"{frozen.version} is registered in {url} as {there.fingerprint[:12]}, and the data set was made with"
            f" {frozen.fingerprint[:12]}:\n{difference}\nVerify it with the store that it was made from"
        )


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise DataError(
            f"{name!r} is no name for a data set: a letter or digit, then up to 62 letters, digits, dots, dashes or underscores"
        )
    return name


def _there(folder: Path, name: str) -> Path:
    place = folder / _checked(name)
    if not place.is_dir():
        known = names(folder)
        raise NotFound(f"there is no data set {name!r} in {folder}{did_you_mean(name, known)}; there are {', '.join(known) or 'none'}")
    return place


def _vacant(folder: Path, name: str) -> Path:
    place = folder / _checked(name)
    if os.path.lexists(place):
        raise DataError(f"{place} is already there, and a data set is never written over: choose another name, or remove it")
    return place


@contextmanager
def _arriving(place: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `place` when all of it is written."""
    scratch = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        yield scratch
        scratch.rename(place)
    except OSError as error:
        raise DataError(f"{place} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read(path: Path) -> pa.Table:
    try:
        return pa.parquet.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _changed(folder: Path) -> Iterator[ChangedFile]:
    """The files that are not what their checksums say. Raises `DataError` where the checksums are not whole."""
    path = folder / SUMS
    try:
        lines = [line.split("  ", 1) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    written = {line[1]: line[0] for line in lines if len(line) == 2}
    if written.keys() != {DATA, MANIFEST} or len(lines) != len(written):
        raise DataError(f"{path} does not list {DATA} and {MANIFEST}, each once: it was changed, and nothing can be proved by it")
    for file, digest in written.items():
        found = _digest(folder / file) if (folder / file).is_file() else None
        if found != digest:
            yield ChangedFile(file, digest, found)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _examples(frozen: pa.Table, again: pa.Table, wrong: Mapping[str, np.ndarray], rows: np.ndarray) -> Iterator[Difference]:
    for row in map(int, np.flatnonzero(rows)[:EXAMPLES]):
        name = next(name for name, differing in wrong.items() if differing[row])
        instrument, moment = (frozen[key][row].as_py() for key in ("instrument_id", "event_timestamp"))
        yield Difference(instrument, moment, name, frozen[name][row].as_py(), again[name][row].as_py())
