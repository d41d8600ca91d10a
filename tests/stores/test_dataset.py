"""Data sets over every store: frozen whole or not at all, proved bit for bit, and whatever is changed afterwards is found."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof import FeatureSet, bars
from asof.config import Settings
from asof.errors import AsofError, DataError, DefinitionError, NotFound, VersionConflict
from asof.feature_store import FeatureStore
from asof.features.text import definition_text
from asof.jobs import dataset as freezing
from asof.jobs.dataset import DATA, MANIFEST, SUMS, load, names, write_parquet
from asof.jobs.manifest import Manifest
from asof.stores.duckdb import DuckDBStore
from asof.stores.store import BARS_TABLE, Store
from tests.stores.conftest import Opener
from tests.stores.rows import MINI, NOON, bar, bars_of, minute
from tests.stores.test_known_at import sql

OTHER = FeatureSet("other", {"ret_1": bars.close.diff(), "volume_3": bars.volume.mean(3)})
ENTITIES = pa.table(
    {
        "label": [1, 0, None, 1],
        "instrument_id": ["A", "B", "A", "C"],
        "event_timestamp": ["2024-01-01T00:10:30Z", "2024-01-01T00:05:00Z", "2024-01-01T00:00:10Z", "2024-01-01T00:10:00Z"],
    }
)


@pytest.fixture
def feature_store(store: Store) -> FeatureStore:
    """Ten bars of A and of B, with the vectors of two feature sets."""
    rows = [bar(n, math.exp(n / 10), name, high=2.0, volume=100.0 + n) for name in "AB" for n in range(10)]
    store.upsert(BARS_TABLE, bars_of(*rows), NOON)
    opened = FeatureStore(store, Settings())
    for feature_set in (MINI, OTHER):
        opened.backfill(feature_set, "1m")
    return opened


def correct(feature_store: FeatureStore, n: int, close: float) -> None:
    """A bar of A is corrected, and the vectors that it reaches are computed again."""
    feature_store.store.upsert(BARS_TABLE, bars_of(bar(n, close, high=3.0, volume=5.0)), datetime.now(UTC))
    for feature_set in (MINI, OTHER):
        feature_store.backfill(feature_set, "1m")


def counts(feature_store: FeatureStore, name: str, folder: Path) -> tuple[int, int, int, int]:
    """Rows that are equal, different, missing and extra."""
    rows = feature_store.verify_dataset(name, folder=folder).rows
    return rows.equal, rows.different, rows.missing, rows.extra


def test_a_data_set_holds_the_entities_with_their_features_and_is_proved(feature_store: FeatureStore, tmp_path: Path) -> None:
    made = feature_store.create_dataset("first", ENTITIES, "mini", "1m", max_age="2m", folder=tmp_path)
    joined = feature_store.get_historical_features(ENTITIES, "mini", "1m", max_age="2m").table
    assert made.frame().to_pylist() == joined.to_pylist()
    assert made.frame().table["ret_1"].null_count == 2
    assert load(tmp_path, "first") == made
    proof = feature_store.verify_dataset("first", folder=tmp_path)
    assert (proof.right, proof.files, proof.rows.equal) == (True, (), 4)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == [SUMS, DATA, MANIFEST]


def test_several_feature_sets_are_told_apart_by_the_names_of_their_columns(feature_store: FeatureStore, tmp_path: Path) -> None:
    made = feature_store.create_dataset("both", ENTITIES, ["mini:ret_1", "other"], "1m", folder=tmp_path)
    marks = ["ts", "available_at", "quality_flags"]
    expected = [f"mini__{name}" for name in ("ret_1", *marks)] + [f"other__{name}" for name in ("ret_1", "volume_3", *marks)]
    assert made.frame().table.column_names == [*ENTITIES.column_names, *expected]
    assert made.frame().table["mini__ret_1"][0] != made.frame().table["other__ret_1"][0]
    assert counts(feature_store, "both", tmp_path) == (4, 0, 0, 0)


def test_the_manifest_tells_all_that_the_data_was_made_of(feature_store: FeatureStore, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    feature_store.create_dataset("first", ENTITIES, ["mini:ret_1"], "1m", max_age=timedelta(hours=2), timezone="UTC", folder=tmp_path)
    text = (tmp_path / "first" / MANIFEST).read_text()
    record = json.loads(text)
    assert text == json.dumps(record, indent=2, sort_keys=True) + "\n"
    assert before <= datetime.fromisoformat(record["known_at"]) <= datetime.now(UTC)
    frozen = record["feature_sets"][0]
    assert (frozen["version"], frozen["fingerprint"], frozen["features"]) == ("mini", MINI.fingerprint, ["ret_1"])
    assert FeatureSet.parse("\n".join(frozen["text"])) == MINI
    assert (record["timeframe"], record["max_age"], record["rows"], record["timezone"]) == ("1m", "2h", 4, "UTC")
    assert (record["pipeline_version"], record["asof_version"]) == ("feature-store.v1.0", "0.1.0")
    assert record["columns"][0] == {"name": "label", "type": "int64"}
    assert Manifest.parse(text, "here").json() == text


def test_an_age_in_trading_time_is_proved_by_the_calendars_of_the_manifest(store: Store, tmp_path: Path) -> None:
    friday = [{"ts": datetime(2024, 3, 8, 20, 59, tzinfo=UTC)}, {"ts": datetime(2024, 3, 8, 20, 58, tzinfo=UTC)}]
    store.upsert(BARS_TABLE, bars_of(*(bar(0, 2.0, name) | ts for name in ("A", "BTC") for ts in friday)), NOON)
    opened = FeatureStore(store, Settings(calendars={"*": "XNYS", "BTC": "24/7"}))  # type: ignore[call-arg]
    opened.backfill(MINI, "1m")
    monday = ["2024-03-11T13:40:00Z", "2024-03-11T14:00:00Z", "2024-03-11T14:00:01Z"]
    entities = pa.table({"instrument_id": ["A"] * 3 + ["BTC"], "event_timestamp": [*monday, monday[0]]})
    made = opened.create_dataset("first", entities, "mini", "1m", max_age="30m trading", folder=tmp_path)
    assert made.frame().table["ts"].is_valid().to_pylist() == [True, True, False, False]
    assert (made.manifest.max_age, made.manifest.calendars) == ("30m trading", {"*": "XNYS", "BTC": "24/7"})
    assert made.frame().table == opened.get_historical_features(entities, "mini", "1m", max_age="30m trading").table
    elsewhere = FeatureStore(store, Settings())
    assert counts(elsewhere, "first", tmp_path) == (4, 0, 0, 0)
    with pytest.raises(DefinitionError, match="no instrument has a calendar"):
        elsewhere.get_historical_features(entities, "mini", "1m", max_age="30m trading")
    assert load(tmp_path, "first").manifest == made.manifest


def test_what_is_corrected_afterwards_changes_neither_the_data_set_nor_its_proof(feature_store: FeatureStore, tmp_path: Path) -> None:
    first = feature_store.create_dataset("first", ENTITIES, ["mini", "other"], "1m", folder=tmp_path)
    correct(feature_store, 9, 77.0)
    correct(feature_store, 8, 78.0)
    assert counts(feature_store, "first", tmp_path) == (4, 0, 0, 0)
    second = feature_store.create_dataset("second", ENTITIES, ["mini", "other"], "1m", folder=tmp_path)
    assert second.frame().to_pylist() != first.frame().to_pylist()
    then = first.manifest.known_at
    third = feature_store.create_dataset("third", ENTITIES, ["mini", "other"], "1m", known_at=then, folder=tmp_path)
    assert (third.folder / DATA).read_bytes() == (first.folder / DATA).read_bytes(), "the same rows are the same bytes"
    assert (third.manifest.known_at, third.manifest.created_at > then) == (then, True)


def test_a_vector_that_was_changed_in_the_history_is_found(feature_store: FeatureStore, tmp_path: Path) -> None:
    feature_store.create_dataset("first", ENTITIES, "mini", "1m", folder=tmp_path)
    correct(feature_store, 9, 77.0)
    embedded = isinstance(feature_store.store, DuckDBStore)
    table, value = ("history.mini", "high") if embedded else ("history.feature_vectors", "features[2]")
    where = "ts = TIMESTAMPTZ '2024-01-01 00:09:00Z'" + ("" if embedded else " AND feature_set_version = 'mini'")
    change(feature_store.store, f"UPDATE {table} SET {value} = 2.0000000000000004 WHERE {where}")
    proof = feature_store.verify_dataset("first", folder=tmp_path)
    assert (proof.right, proof.rows.equal, proof.rows.different) == (False, 3, 1)
    (example,) = proof.rows.examples
    assert (example.instrument, example.column, example.stored, example.computed) == ("A", "high", 2.0, 2.0000000000000004)


def test_a_vector_that_is_gone_or_was_put_in_is_found(feature_store: FeatureStore, tmp_path: Path) -> None:
    feature_store.create_dataset("first", ENTITIES, "mini", "1m", folder=tmp_path)
    embedded = isinstance(feature_store.store, DuckDBStore)
    table, also = ("main.mini", "") if embedded else ("feature_vectors", " AND feature_set_version = 'mini'")
    change(feature_store.store, f"UPDATE {table} SET instrument_id = 'C' WHERE instrument_id = 'B'{also}")
    expected = (2, 0, 1, 1) if embedded else (4, 0, 0, 0)  # a server's triggers keep what was, whoever changes it
    assert counts(feature_store, "first", tmp_path) == expected


def change(store: Store, statement: str) -> None:
    """Do what nobody should."""
    if isinstance(store, DuckDBStore):
        sql(store, statement)
    else:
        with store._server.connection() as connection:  # type: ignore[attr-defined]
            connection.execute(statement)


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[tuple[FeatureStore, Path]]:
    """A data set `first`, and the store that it was made from; for what does not depend on the kind of store."""
    from asof import connect

    with connect("duckdb://") as opened:
        opened.store.upsert(BARS_TABLE, bars_of(*(bar(n, 1.0 + n, name) for name in "AB" for n in range(10))), NOON)
        for feature_set in (MINI, OTHER):
            opened.backfill(feature_set, "1m")
        opened.create_dataset("first", ENTITIES, "mini", "1m", folder=tmp_path)
        yield opened, tmp_path


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), file=st.sampled_from([DATA, MANIFEST]))
def test_a_single_changed_bit_of_a_file_is_found(place: float, bit: int, file: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    from asof import connect

    folder = tmp_path_factory.mktemp("tampered")
    with connect("duckdb://") as opened:
        opened.store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
        opened.backfill(MINI, "1m")
        opened.create_dataset("first", ENTITIES, "mini", "1m", folder=folder)
        path = folder / "first" / file
        content = bytearray(path.read_bytes())
        before = hashlib.sha256(content).hexdigest()
        content[int(place * len(content))] ^= 1 << bit
        path.write_bytes(content)
        proof = opened.verify_dataset("first", folder=folder)
        assert not proof.right
        assert [(f.file, f.written, f.found) for f in proof.files] == [(file, before, hashlib.sha256(content).hexdigest())]


def test_a_file_that_is_gone_is_named(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    (folder / "first" / DATA).unlink()
    assert [(f.file, f.found) for f in opened.verify_dataset("first", folder=folder).files] == [(DATA, None)]


@pytest.mark.parametrize(
    "text", ["", "abc", "0  data.parquet\n", "0  data.parquet\n0  data.parquet\n0  manifest.json\n", "0  ../x\n0  y\n"]
)
def test_checksums_that_are_not_whole_prove_nothing(frozen: tuple[FeatureStore, Path], text: str) -> None:
    opened, folder = frozen
    (folder / "first" / SUMS).write_text(text)
    with pytest.raises(DataError, match=r"SHA256SUMS does not list data.parquet and manifest.json, each once"):
        opened.verify_dataset("first", folder=folder)


def forge(folder: Path, without: str = "", **changes: object) -> None:
    """Change the manifest, and its checksum with it."""
    place = folder / "first"
    record = json.loads((place / MANIFEST).read_text()) | changes
    record.pop(without, None)
    (place / MANIFEST).write_text(json.dumps(record))
    digests = {file: hashlib.sha256((place / file).read_bytes()).hexdigest() for file in (DATA, MANIFEST)}
    (place / SUMS).write_text("".join(f"{digest}  {file}\n" for file, digest in digests.items()))


def test_a_data_set_of_before_ages_could_count_trading_is_proved_as_ever(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    forge(folder, without="calendars")
    assert opened.verify_dataset("first", folder=folder).right


def test_another_fingerprint_and_an_unknown_feature_set_are_errors_that_say_so(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    (there,) = json.loads((folder / "first" / MANIFEST).read_text())["feature_sets"]
    changed = FeatureSet("mini", {"ret_1": bars.close.diff(), "high": bars.high + 0})
    forge(folder, feature_sets=[there | {"fingerprint": changed.fingerprint, "text": changed.text.split("\n")}])
    with pytest.raises(
        VersionConflict, match=rf"made with {changed.fingerprint[:12]}:(.|\n)*\+feature ret_1 = bars.close - bars.close.lag"
    ):
        opened.verify_dataset("first", folder=folder)
    text = definition_text("mono", MINI.features, {})
    forge(folder, feature_sets=[there | {"version": "mono", "text": text.split("\n")}])
    with pytest.raises(NotFound, match="mono is not registered in duckdb"):
        opened.verify_dataset("first", folder=folder)


def test_rows_that_were_taken_out_of_both_files_are_noticed(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    place = folder / "first"
    write_parquet(pq.read_table(place / DATA).slice(1), place / DATA)
    forge(folder)
    with pytest.raises(DataError, match="has not the rows and columns that its manifest names"):
        opened.verify_dataset("first", folder=folder)


def test_a_value_that_was_forged_with_its_checksums_is_found_by_the_store(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    table = pq.read_table(folder / "first" / DATA)
    forged = pa.array([7.0, *table["high"].to_pylist()[1:]], pa.float64())
    write_parquet(table.set_column(table.schema.get_field_index("high"), "high", forged), folder / "first" / DATA)
    forge(folder)
    assert counts(opened, "first", folder) == (3, 1, 0, 0)


@pytest.mark.parametrize("name", ["", ".", "..", "../first", "a/b", "/x", "a\\b", ".hidden", "-x", "a b", "ä", "x" * 64, "first\n", "a\0b"])
def test_a_name_that_could_lead_elsewhere_is_refused(frozen: tuple[FeatureStore, Path], name: str) -> None:
    opened, folder = frozen
    for attempt in (
        lambda: opened.create_dataset(name, ENTITIES, "mini", "1m", folder=folder / "in"),
        lambda: opened.verify_dataset(name, folder=folder),
    ):
        with pytest.raises(DataError, match="is no name for a data set"):
            attempt()
    assert sorted(path.name for path in folder.iterdir()) == ["first"]


def test_a_data_set_is_never_written_over(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    before = {path.name: path.read_bytes() for path in (folder / "first").iterdir()}
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder / "nowhere")
    (folder / "file").write_text("mine")
    for name in ("first", "empty", "link", "file"):
        with pytest.raises(DataError, match="is already there, and a data set is never written over"):
            opened.create_dataset(name, ENTITIES, "mini", "1m", folder=folder)
    assert {path.name: path.read_bytes() for path in (folder / "first").iterdir()} == before


def test_of_two_that_are_made_at_once_under_one_name_one_is_there_whole(
    frozen: tuple[FeatureStore, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, folder = frozen
    write = freezing.write_parquet

    def overtaken(table: pa.Table, path: Path) -> None:
        write(table, path)
        monkeypatch.setattr(freezing, "write_parquet", write)
        monkeypatch.setattr("os.getpid", lambda: 1)
        opened.create_dataset("second", ENTITIES, "other", "1m", folder=folder)

    monkeypatch.setattr(freezing, "write_parquet", overtaken)
    with pytest.raises(DataError, match="second cannot be written"):
        opened.create_dataset("second", ENTITIES, "mini", "1m", folder=folder)
    assert [one.version for one in load(folder, "second").manifest.feature_sets] == ["other"]
    assert opened.verify_dataset("second", folder=folder).right
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_one_that_cannot_be_finished_leaves_nothing_behind(frozen: tuple[FeatureStore, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened, folder = frozen

    def full(table: pa.Table, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(freezing, "write_parquet", full)
    with pytest.raises(DataError, match="second cannot be written: No space left on device"):
        opened.create_dataset("second", ENTITIES, "mini", "1m", folder=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["first"]
    assert names(folder) == ["first"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"known_at": datetime(2099, 1, 1, tzinfo=UTC)}, DataError, "known_at 2099-01-01T00:00:00.00:00 is yet to come"),
        ({"known_at": "2024-01-01T10:00"}, DataError, "has no zone"),
        ({"max_age": "5"}, DefinitionError, "duration '5'"),
        ({"max_age": timedelta(microseconds=5)}, DefinitionError, "whole seconds"),
        ({"max_age": timedelta(0)}, DefinitionError, "whole seconds"),
        ({"features": []}, NotFound, "no features are named"),
        ({"features": "mini:ret_2"}, NotFound, "mini has no feature 'ret_2'; did you mean 'ret_1'"),
        ({"features": ["mini", "minor"]}, NotFound, "no feature set 'minor'"),
        ({"timeframe": "1x"}, DefinitionError, "timeframe '1x'"),
        ({"entity_df": ENTITIES.append_column("ts", ENTITIES["label"])}, DataError, "the entities already have ts"),
        (
            {"entity_df": ENTITIES.append_column("mini__ts", ENTITIES["label"]), "features": ["mini", "other"]},
            DataError,
            "the entities already have mini__ts",
        ),
        ({"entity_df": ENTITIES.drop_columns(["event_timestamp"])}, DataError, "no column 'event_timestamp'"),
    ],
)
def test_what_no_data_set_can_be_made_of_is_refused_with_the_mend(
    frozen: tuple[FeatureStore, Path], options: dict[str, object], error: type[AsofError], message: str
) -> None:
    opened, folder = frozen
    given_options = {"entity_df": ENTITIES, "features": "mini", "timeframe": "1m", "folder": folder} | options
    with pytest.raises(error, match=message):
        opened.create_dataset("second", **given_options)  # type: ignore[arg-type]
    assert names(folder) == ["first"]


def test_one_that_is_not_there_and_one_whose_manifest_is_broken_are_told_apart(frozen: tuple[FeatureStore, Path]) -> None:
    _, folder = frozen
    with pytest.raises(NotFound, match=r"no data set 'frist' in .*; did you mean 'first'"):
        load(folder, "frist")
    with pytest.raises(NotFound, match="there are none"):
        load(folder / "nowhere", "first")
    for text, message in (
        ("{", "is no manifest of a data set: JSONDecodeError"),
        ("[]", "is no manifest of a data set"),
        ('{"format": "asof.dataset.v2"}', "is of another format than asof.dataset.v1"),
        ('{"format": "asof.dataset.v1"}', "is no manifest of a data set: KeyError: 'name'"),
        ('{"format": "asof.dataset.v1", "name": 5}', "is no manifest of a data set: TypeError: name is 5"),
    ):
        (folder / "first" / MANIFEST).write_text(text)
        with pytest.raises(DataError, match=message):
            load(folder, "first")


def test_a_moment_of_another_zone_is_kept_as_the_moment_that_it_is(frozen: tuple[FeatureStore, Path]) -> None:
    opened, folder = frozen
    there = load(folder, "first").manifest.known_at
    elsewhere = there.astimezone(timezone(timedelta(hours=9)))
    opened.create_dataset("second", ENTITIES, "mini", "1m", known_at=elsewhere, folder=folder)
    assert load(folder, "second").manifest.known_at == there
    assert (folder / "second" / DATA).read_bytes() == (folder / "first" / DATA).read_bytes()


def test_the_bytes_do_not_depend_on_how_the_rows_came(tmp_path: Path) -> None:
    table = pa.table({"x": [float(n) for n in range(1000)], "flags": [["A"] * (n % 3) for n in range(1000)]})
    pieces = pa.concat_tables([table.slice(0, 10), table.slice(10, 500), table.slice(510)])
    for n, given_table in enumerate((table, pieces)):
        write_parquet(given_table, tmp_path / str(n))
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_entities_keep_their_types_and_metadata_of_others_is_left_out(new_store: Opener, tmp_path: Path) -> None:
    moments = pa.array([minute(10), minute(5)], pa.timestamp("ns", "America/New_York"))
    entities = pa.table(
        {"instrument_id": pa.array(["A", "B"]).dictionary_encode(), "event_timestamp": moments, "size": pa.array([1, 2], pa.uint8())}
    )
    with new_store() as store:
        store.upsert(BARS_TABLE, bars_of(bar(0), bar(0, instrument="B")), NOON)
        opened = FeatureStore(store, Settings())
        opened.backfill(MINI, "1m")
        made = opened.create_dataset("typed", entities.replace_schema_metadata({"pandas": "{}"}), MINI, "1m", folder=tmp_path)
        assert made.frame().table.select(entities.column_names).to_pylist() == entities.to_pylist()
        assert made.frame().table.schema.metadata is None
        assert opened.verify_dataset("typed", folder=tmp_path).right
