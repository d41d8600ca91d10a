"""Every command: its help, its JSON, what it says of mistakes, and what it ends with."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest

from asof import __version__
from asof.cli.app import COMMANDS, GROUPS
from asof.cli.init import NEXT
from asof.definitions import from_file
from asof.features.library import SHIPPED
from asof.jobs.manifest import Manifest
from asof.sources.sample import INSTRUMENTS
from asof.stores.duckdb import DuckDBStore
from tests.cli.conftest import Command

SETS = ", ".join(sorted([*SHIPPED, "my_v1"]))
"""The feature sets of a new project."""
LINES = {
    "init": "init there",
    "migrate": "migrate",
    "plan": "plan",
    "apply": "apply",
    "ingest bars": "ingest bars data/bars.parquet",
    "ingest events": "ingest events data/events.jsonl",
    "ingest actions": "ingest actions splits.csv",
    "ingest memberships": "ingest memberships index.csv --scheme index",
    "ingest trades": "ingest trades trades.csv",
    "ingest quotes": "ingest quotes quotes.csv",
    "ingest books": "ingest books level2.csv --format level2",
    "bars from-trades": "bars from-trades 1m",
    "backfill": "backfill my_v1 --timeframe 1d",
    "get": "get my_v1 --timeframe 1d --latest",
    "join": "join my_v1 --timeframe 1d data/entities.csv --out training.parquet",
    "verify": "verify my_v1 --timeframe 1d",
    "replay": "replay my_v1 --timeframe 1d --instrument ALFA",
    "explain": "explain my_v1 --timeframe 1d --instrument ALFA --ts 2024-06-10T14:30:00Z",
    "leakcheck": "leakcheck features.py --cuts 2",
    "dataset create": "dataset create first data/entities.csv --features my_v1 --timeframe 1d",
    "dataset verify": "dataset verify first",
    "dataset list": "dataset list",
    "dataset show": "dataset show first",
    "doctor": "doctor",
    "demo": "demo",
}
"""Each command with arguments that work in a project."""

MANIFEST = {"format", *(field.name for field in dataclasses.fields(Manifest))}
"""What the manifest of a data set holds."""

ANSWERS = {
    "init": {"folder", "next"},
    "migrate": {"migrated"},
    "plan": {"plan"},
    "apply": {"registered", "unchanged"},
    "ingest bars": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "ingest events": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "ingest actions": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "ingest memberships": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "ingest trades": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "ingest quotes": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "ingest books": {"accepted", "unchanged", "corrected", "refused", "missing_prices", "reasons"},
    "bars from-trades": {"inserted", "corrected", "unchanged"},
    "backfill": {"computed", "inserted", "corrected", "unchanged", "withdrawn", "without_bars", "failed", "seconds"},
    "get": {"vectors"},
    "join": {"rows", "found", "out"},
    "verify": {"right", "equal", "different", "missing", "extra", "examples", "causes"},
    "replay": {"computed", "inserted", "corrected", "withdrawn", "failed", "into", "topic", "seconds"},
    "explain": {"instrument", "ts", "raised", "stored", "features", "flags", "bars", "events", "actions", "higher"},
    "leakcheck": {"clean", "subjects", "compared", "findings", "unseen"},
    "dataset create": {"folder", *MANIFEST},
    "dataset verify": {"right", "files", "equal", "different", "missing", "extra", "examples"},
    "dataset list": {"datasets"},
    "dataset show": MANIFEST,
    "doctor": {"ok", "findings"},
    "demo": {"vectors", "changed_again", "picture"},
}
"""What the JSON of each command holds."""

COLUMNS = ["quality_flags", "event_count", "ohlcv_count", "available_at", "computed_at"]


def columns_of(version: str) -> list[str]:
    """The columns of every tabular format, in their order."""
    features = {
        "my_v1": ["ret_1", "vol_20", "range", "volume_ratio", "news_count", "news_mean"],
        "fs_v1": [
            "ret_1",
            "ret_5",
            "vol_20",
            "event_count_1h",
            "sentiment_mean_1h",
            "sentiment_conf_mean_1h",
            "sentiment_weighted_1h",
            "sentiment_std_1h",
        ],
    }
    return ["instrument_id", "timeframe", "ts", "feature_set_version", *features[version], *COLUMNS]


def test_every_command_is_tried_here() -> None:
    tried_elsewhere = {"resample", "dlq", "keys", "run", "serve"}  # in files named after them, or after the service
    assert {name.split()[0] for name in LINES} == {*COMMANDS, *GROUPS} - tried_elsewhere
    assert LINES.keys() == ANSWERS.keys()


def test_the_command_alone_lists_the_commands(asof: Command) -> None:
    for done in (asof(), asof("--help"), asof("-h")):
        assert all(name in done.text + done.errors for name in (*COMMANDS, *GROUPS))
    assert asof("--version").text == f"asof {__version__}\n"


@pytest.mark.parametrize("name", LINES)
def test_a_command_tells_what_it_is_for_and_what_it_takes(asof: Command, name: str) -> None:
    done = asof(*name.split(), "--help")
    assert (done.code, done.errors) == (0, "")
    assert f"Usage: asof {name}" in done.text
    assert "--json" in done.text


def test_a_command_with_json_prints_one_object_and_nothing_else(asof: Command, project: Path) -> None:
    for name, line in LINES.items():
        done = asof(*line.split(), "--json")
        assert (done.code, done.errors) == (0, ""), name
        assert done.json.keys() == ANSWERS[name], name


def test_an_error_with_json_is_an_object_too(asof: Command, project: Path) -> None:
    done = asof("get", "my_v2", "-t", "1d", "--json")
    assert done.code == 6
    assert done.json == {
        "error": f"no feature set 'my_v2'; there are {SETS}; did you mean 'my_v1'?",
        "kind": "NotFound",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("aply", "No such command 'aply'. Did you mean 'apply'"),
        ("ingest bar", "No such command 'bar'. Did you mean 'bars'?"),
        ("init --jsn", "No such option: --jsn (Possible options: --json)"),
        ("migrate --prnt", "No such option: --prnt (Possible options: --print)"),
        ("plan --jsn", "No such option: --jsn"),
        ("apply --stor x", "No such option: --stor (Possible options: --json, --store)"),
        ("ingest bars x.csv --timefram 1d", "No such option: --timefram (Possible options: --timeframe"),
        ("ingest events x.csv --timezon UTC", "No such option: --timezon (Possible options: --timezone"),
        ("backfill fs_v1 --timefram 1d", "No such option: --timefram"),
        ("get fs_v1 -t 1d --lates", "No such option: --lates (Possible options: --latest)"),
        ("get fs_v1 -t 1d --format jsnl", "'jsnl' is not one of table, csv, jsonl, parquet, arrow; did you mean 'jsonl'?"),
        ("get fs_v1 -t 1d --out x.txt", "'txt' is not one of table, csv, jsonl, parquet, arrow"),
        ("get fs_v1 -t 1d --format table --out x.csv", "a table is for looking at"),
        ("join fs_v1 e.csv -t 1d --ot x.csv", "No such option: --ot (Possible options:"),
        ("join fs_v1 e.csv -t 1d --out x.jsonl", "the name must end in one of .csv, .parquet, .arrow"),
        ("ingest bars x.csv --column when", "'when' is not OURS=THEIRS, such as ts=ts_open_utc"),
        ("ingest bars x.csv --column opn=o", "'opn' is none of instrument_id, timeframe, ts, open"),
        ("ingest bars x.csv --column opn=o", "did you mean 'open'?"),
        ("leakcheck --ct 3", "No such option: --ct (Possible options: --cuts"),
        ("leakcheck --instrument ALFA", "say which of the store's bars to take, such as --timeframe 1d"),
        ("dataset creat x", "No such command 'creat'. Did you mean 'create'?"),
        ("dataset create x e.csv -t 1d", "Missing option '--features'"),
        ("dataset list --jsn", "No such option: --jsn"),
        ("doctor --jsn", "No such option: --jsn"),
        ("demo --dri x", "No such option: --dri (Possible options: --dir)"),
        ("get", "Missing argument"),
        ("backfill fs_v1", "Missing option '--timeframe'"),
        ("backfill fs_v1 -t 1d --threads 0", "Input should be greater than or equal to 1"),
    ],
)
def test_a_mistyped_command_line_ends_with_2_and_the_nearest_name(asof: Command, line: str, message: str) -> None:
    done = asof(*line.split())
    assert done.code == 2
    assert message in done.said


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("backfill my_v1 -t 5x", 3, "timeframe '5x' is not one of <n>s, <n>m, <n>h, <n>d"),
        ("backfill my_v1 -t 1d --memory lots", 3, "memory 'lots' is not an amount such as 512MB or 2GB"),
        ("backfill my_v1 -t 1d --from 2024-13-01", 4, "start '2024-13-01' is not a time such as 2024-01-31"),
        ("backfill my_v1 -t 1d --to 2024-01-01T10:00", 4, "end '2024-01-01T10:00' has no zone: write 2024-01-01T10:00Z for UTC"),
        ("backfill my_v1 -t 1h", 6, "the store has no 1h bars; it has bars of 1d"),
        ("backfill my_v1 -t 1d -i ALFB", 6, "the store has no 1d bars of ALFB; did you mean 'ALFA'?"),
        (
            "backfill my_v2 -t 1d",
            6,
            f"no feature set 'my_v2'; there are {SETS}; did you mean 'my_v1'?",
        ),
        ("get fs_v1 -t 1d", 6, "fs_v1 has no vectors in duckdb:///asof.duckdb: run asof backfill fs_v1 first"),
        (
            "apply my_v2",
            6,
            f"no feature set 'my_v2' is defined; there are {SETS}; did you mean 'my_v1'?",
        ),
        ("join my_v1 data/entities.csv -t 1d -o x.csv --feature ret_2", 6, "my_v1 has no feature 'ret_2'; did you mean 'ret_1'?"),
        ("join my_v1 data/entitis.csv -t 1d -o x.csv", 4, "data/entitis.csv does not exist; did you mean 'entities.csv'?"),
        ("join my_v1 data/bars.parquet -t 1d -o x.csv", 4, "the entities already have ts"),
        ("join my_v1 data/entities.csv -t 1d -o no/x.csv", 4, "no/x.csv cannot be written: there is no folder no"),
        ("leakcheck feature.py", 3, "feature.py, named as the features file, does not exist"),
        (
            "leakcheck book_v2",
            6,
            f"no feature set 'book_v2'; there are {SETS}; did you mean",
        ),
        ("leakcheck features.py:my_v2", 6, "features.py has no 'my_v2'; did you mean 'my_v1'?"),
        ("leakcheck features.py:news", 3, "features.py:news is EventWindow, no feature set, operator or function"),
        ("leakcheck -t 1h", 6, "the store has no 1h bars"),
        ("leakcheck -t 1d -i ALFB", 6, "the store has no 1d bars of ALFB; did you mean 'ALFA'?"),
        ("leakcheck --skip strat", 3, "no check is called 'strat'"),
        ("dataset create ../x data/entities.csv -f my_v1 -t 1d", 4, "'../x' is no name for a data set"),
        ("dataset create x data/entities.csv -f my_v2 -t 1d", 6, "no feature set 'my_v2'"),
        ("dataset create x data/entities.csv -f my_v1 -t 1d --known-at 2099-01-01", 4, "is yet to come"),
        ("dataset verify x", 6, "there is no data set 'x' in datasets; there are none"),
        ("dataset show x", 6, "there is no data set 'x' in datasets; there are none"),
        ("ingest bars data/bar.parquet", 4, "data/bar.parquet does not exist; did you mean 'bars.parquet'?"),
        ("ingest bars data/events.jsonl", 4, "there is no column 'instrument_id'"),
        ("plan --store no/such/file", 5, "there is no folder no/such to hold it"),
        ("plan --store mysql://x", 5, "unknown kind 'mysql'"),
        ("init", 1, "asof.toml is already there; choose an empty folder"),
    ],
)
def test_what_cannot_be_done_ends_with_its_code_and_the_mend(asof: Command, project: Path, line: str, code: int, message: str) -> None:
    done = asof(*line.split())
    assert (done.code, done.output) == (code, b"")
    assert done.said.startswith("error: ")
    assert message in done.said
    assert "Traceback" not in done.errors


def test_every_command_that_init_prints_just_works(asof: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = asof("init", "my [project]")
    assert done.code == 0
    first, *lines = [line.strip() for line in done.text.split("Next:")[1].strip().splitlines()]
    assert lines == list(NEXT)
    change, where = shlex.split(first)
    assert change == "cd"
    monkeypatch.chdir(where)
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "asof"
        done = asof(*arguments)
        assert done.code == 0, done.errors
        assert done.text
        assert done.errors == ""
    assert pa.parquet.read_table("training.parquet").num_rows == 30


def test_plan_shows_what_is_new_and_apply_registers_it(asof: Command, folder: Path) -> None:
    asof("init")
    planned = asof("plan")
    assert planned.code == 0
    assert "+ my_v1  new" in planned.text
    assert "feature range = (bars.high - bars.low) / bars.close" in planned.text
    assert "my_v1" not in str(asof("apply", "fs_v1", "--json").json["registered"])
    assert asof("apply", "--json").json == {"registered": ["my_v1"], "unchanged": ["fs_v1"]}
    assert asof("apply", "--json").json == {"registered": [], "unchanged": ["fs_v1", "my_v1"]}
    assert [(row["version"], row["state"]) for row in asof("plan", "--json").json["plan"]] == [  # type: ignore[index, attr-defined]
        ("fs_v1", "unchanged"),
        ("my_v1", "unchanged"),
    ]


def test_a_changed_definition_is_refused_everywhere_with_the_difference(asof: Command, project: Path) -> None:
    features = project / "features.py"
    features.write_text(features.read_text().replace("ret_1.std(20, ddof=0)", "ret_1.std(10, ddof=0)"))
    planned = asof("plan")
    assert planned.code == 3
    assert "! my_v1  changed: a version never changes; give the new definition a version of its own" in planned.text
    for line in ("apply", "backfill my_v1 -t 1d", "get my_v1 -t 1d", "join my_v1 data/entities.csv -t 1d -o x.csv"):
        done = asof(*line.split())
        assert (done.code, done.output) == (3, b"")
        assert "my_v1 is registered with another definition, and a version never changes" in done.errors
        assert "-feature vol_20 = " in done.errors
        assert "+feature vol_20 = " in done.errors
        assert "Give the new definition a new version" in done.errors


def test_a_changed_setting_of_a_shipped_set_is_a_changed_definition(asof: Command, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asof("backfill", "fs_v1", "-t", "1d").code == 0
    monkeypatch.setenv("FEATURE_EVENT_WINDOW_MINUTES", "1440")
    done = asof("backfill", "fs_v1", "-t", "1d")
    assert done.code == 3
    assert "fs_v1 is registered with another definition" in done.errors


def test_a_shipped_set_may_be_imported_to_build_on_whatever_its_settings(
    asof: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "features.py").write_text("from asof import FeatureSet, fs_v1\nmore = FeatureSet('more', {**fs_v1.features})\n")
    monkeypatch.setenv("FEATURE_EVENT_WINDOW_MINUTES", "1440")
    assert "+ more  new" in asof("plan").text


def test_a_version_that_is_no_longer_defined_is_rebuilt_from_the_registry(asof: Command, project: Path) -> None:
    (project / "features.py").write_text("")
    assert "- my_v1  registered only" in asof("plan").text
    assert asof("backfill", "my_v1", "-t", "1d", "--json").json["unchanged"] == 1300
    assert len(asof("get", "my_v1", "-t", "1d", "--latest", "--json").json["vectors"]) == len(INSTRUMENTS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from asof import oops", "features.py: ImportError: cannot import name 'oops'"),
        ("def", "features.py line 1: invalid syntax"),
        ("from asof import FeatureSet\nFeatureSet('x y', {})", "feature set version 'x y' must be a letter"),
        (
            "from asof import FeatureSet, bars\na = FeatureSet('a', {'x': bars.open + 1})\nb = FeatureSet('a', {'x': bars.open + 2})",
            "defines a twice",
        ),
        ("from asof import FeatureSet, bars\na = FeatureSet('fs_v1', {'x': bars.open + 1})", "redefines fs_v1, which ships with asof"),
    ],
)
def test_a_features_file_that_is_wrong_is_refused_with_its_place(asof: Command, project: Path, code: str, message: str) -> None:
    (project / "features.py").write_text(code)
    done = asof("plan")
    assert done.code == 3
    assert message in done.said


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        ("stor = 'x'", 2, "setting stor: Extra inputs are not permitted; did you mean 'store'?"),
        ("event_window_minutes = 0", 2, "greater than or equal to 1"),
        ("event_window_minutes = 'an hour'", 2, "not 'an hour'"),
        ("= 5", 2, "asof.toml is not valid TOML"),
        ("features = 'none.py'", 3, "none.py, named as the features file, does not exist"),
        ("store = ''", 5, "the store has no path"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_by_its_name(asof: Command, folder: Path, settings: str, code: int, message: str) -> None:
    (folder / "asof.toml").write_text(settings)
    done = asof("plan")
    assert done.code == code
    assert message in done.said
    assert "event_window_minutes" not in settings or "WINDOW_MINUTES" in done.said.upper()


def test_settings_that_are_no_text_are_refused(asof: Command, folder: Path) -> None:
    (folder / "asof.toml").write_bytes(b"store = '\xff'")
    assert "asof.toml is not valid TOML" in asof("plan").said


def test_the_environment_wins_over_the_file_and_an_option_over_both(asof: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "asof.toml").write_text("store = 'file.duckdb'")
    asof("plan")
    monkeypatch.setenv("ASOF_STORE", "environment.duckdb")
    asof("plan")
    asof("plan", "--store", "option.duckdb")
    assert sorted(p.name for p in folder.glob("*.duckdb")) == ["environment.duckdb", "file.duckdb", "option.duckdb"]


def test_ingest_tells_what_it_refused_and_why_and_where_it_is(asof: Command, folder: Path) -> None:
    (folder / "bars.csv").write_text(
        "instrument_id,ts,close\nA,2024-01-01T00:00:00Z,1\nB,2024-01-01T00:00:00Z,[/x]\nC,2024-01-01,1\nD,2024-01-01T00:00:00Z,0\n"
    )
    done = asof("ingest", "bars", "bars.csv", "-t", "1d")
    assert done.code == 0
    assert "2 accepted, 0 unchanged, 0 corrected, 2 refused" in done.text
    assert "1 bars have a missing price" in done.text
    assert "not_a_number 1 bars.csv row 3: close='[/x]' is not a number" in done.said
    assert "naive_time" in done.errors
    assert "table `quarantine`" in done.errors
    with duckdb.connect("asof.duckdb", read_only=True) as connection:
        assert connection.sql("SELECT source, row, reason FROM quarantine ORDER BY row").fetchall() == [
            ("bars.csv", 3, "not_a_number"),
            ("bars.csv", 4, "naive_time"),
        ]


def test_strict_ingest_ends_with_4_and_leaves_the_file_out(asof: Command, folder: Path) -> None:
    (folder / "bars.csv").write_text("instrument_id,ts,close\nA,2024-01-01T00:00:00Z,1\nB,2024-01-01,1\n")
    done = asof("ingest", "bars", "bars.csv", "-t", "1d", "--strict")
    assert done.code == 4
    assert "bars.csv, row 3" in done.said
    assert asof("backfill", "fs_v1", "-t", "1d").code == 6


@pytest.fixture(scope="session")
def validator() -> object:
    """The validator of the schema of feature vectors."""
    import jsonschema

    schema = json.loads((Path(__file__).resolve().parents[2] / "schemas" / "features.v1.json").read_text())
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


@pytest.mark.parametrize("version", ["my_v1", "fs_v1"])
def test_vectors_come_in_every_format_with_the_same_rows(asof: Command, project: Path, validator: object, version: str) -> None:
    asof("backfill", version, "-t", "1d")
    tables = {}
    for form in ("parquet", "arrow", "csv"):
        done = asof("get", version, "-t", "1d", "--out", f"x.{form}")
        assert done.text == f"1,300 vectors in x.{form}\n"
        piped = asof("get", version, "-t", "1d", "--format", form)
        assert (piped.code, piped.output) == (0, (project / f"x.{form}").read_bytes())
    tables = {
        "parquet": pa.parquet.read_table("x.parquet"),
        "arrow": pa.ipc.open_stream(project / "x.arrow").read_all(),
        "csv": pa.csv.read_csv("x.csv", convert_options=pa.csv.ConvertOptions(strings_can_be_null=False)),
    }
    assert all(table.column_names == columns_of(version) for table in tables.values())
    rows = tables["parquet"].to_pylist()
    assert tables["arrow"].to_pylist() == rows
    flags = ["|".join(row["quality_flags"]) for row in rows]
    assert tables["csv"]["quality_flags"].to_pylist() == flags
    for name in columns_of(version)[4:-5]:
        assert tables["csv"][name].to_pylist() == tables["parquet"][name].to_pylist()
    records = [json.loads(line) for line in asof("get", version, "-t", "1d", "-f", "jsonl").text.splitlines()]
    assert [error.message for record in records for error in validator.iter_errors(record)] == []  # type: ignore[attr-defined]
    assert [(r["instrument_id"], r["features"], r["quality_flags"]) for r in records] == [
        (row["instrument_id"], {n: row[n] for n in columns_of(version)[4:-5] if row[n] is not None}, row["quality_flags"]) for row in rows
    ]
    assert asof("get", version, "-t", "1d", "--json").json["vectors"] == records


def test_a_recompute_keeps_the_id_of_a_vector(asof: Command, project: Path) -> None:
    before = asof("get", "my_v1", "-t", "1d", "--json").json["vectors"]
    asof("backfill", "my_v1", "-t", "1d", "--store", "other.duckdb")
    asof("ingest", "bars", "data/bars.parquet", "--store", "other.duckdb")
    asof("backfill", "my_v1", "-t", "1d", "--store", "other.duckdb")
    after = asof("get", "my_v1", "-t", "1d", "--store", "other.duckdb", "--json").json["vectors"]
    assert [v["feature_id"] for v in before] == [v["feature_id"] for v in after]  # type: ignore[attr-defined]
    assert len({v["feature_id"] for v in before}) == 1300  # type: ignore[attr-defined]


def test_a_selection_includes_both_ends_and_a_date_is_the_whole_day(asof: Command, project: Path) -> None:
    chosen = ("get", "my_v1", "-t", "1d", "-i", "ALFA", "-i", "ECHO", "--from", "2024-03-04", "--to", "2024-03-06", "--json")
    found = [(v["instrument_id"], v["ts_utc"]) for v in asof(*chosen).json["vectors"]]  # type: ignore[attr-defined]
    assert found == [(name, f"2024-03-0{day}T14:30:00Z") for name in ("ALFA", "ECHO") for day in (4, 5, 6)]
    exact = asof(*chosen[:6], "--from", "2024-03-04T14:30:00Z", "--to", "2024-03-05T09:30:00-05:00", "--json")
    assert [v["ts_utc"] for v in exact.json["vectors"]] == ["2024-03-04T14:30:00Z", "2024-03-05T14:30:00Z"]  # type: ignore[attr-defined]


def test_a_selection_of_nothing_is_empty_and_says_how_to_widen_it(asof: Command, project: Path) -> None:
    done = asof("get", "my_v1", "-t", "1d", "--from", "2031-01-01", "--format", "csv")
    assert (done.code, done.text.strip()) == (0, ",".join(f'"{name}"' for name in columns_of("my_v1")))
    assert "no vectors of my_v1 1d are stored for this selection" in done.said


def test_a_table_to_look_at_shows_names_with_brackets_as_they_are(asof: Command, folder: Path) -> None:
    (folder / "bars.csv").write_text("instrument_id,ts,close\n[/b],2024-01-01T00:00:00Z,1\n[bold]x,2024-01-01T00:00:00Z,1\n")
    asof("ingest", "bars", "bars.csv", "-t", "1d")
    asof("backfill", "fs_v1", "-t", "1d", "-i", "[/b]", "-i", "[bold]x", "-i", "[/none]")
    table = asof("get", "fs_v1", "-t", "1d")
    assert table.code == 0
    assert "[/b]" in table.text
    assert "[bold]x" in table.text
    assert "INSUFFICIENT_OHLCV" in table.text


def test_instruments_without_bars_get_no_vector_and_a_line_in_the_quality_log(asof: Command, project: Path) -> None:
    done = asof("backfill", "my_v1", "-t", "1d", "-i", "ALFA", "-i", "ZULU")
    assert done.code == 0
    assert "no 1d bars of ZULU: no vectors; noted in feature_quality_log" in done.said
    with duckdb.connect("asof.duckdb", read_only=True) as connection:
        assert connection.sql("SELECT instrument_id, issue_type FROM feature_quality_log").fetchall() == [("ZULU", "NO_BARS")]


def test_a_join_keeps_every_row_in_its_order_with_its_own_columns(asof: Command, project: Path) -> None:
    lines = ["label,event_timestamp,instrument_id"]
    lines += [f"{n},2024-0{1 + n % 9}-1{n % 10}T12:00:00Z,{('ALFA', 'NOBODY', 'ECHO')[n % 3]}" for n in range(60)]
    (project / "rows.csv").write_text("\n".join([lines[0], *reversed(lines[1:]), *lines[1:4]]) + "\n")
    done = asof("join", "my_v1", "rows.csv", "-t", "1d", "-o", "out.parquet", "-f", "vol_20", "-f", "ret_1", "--json")
    joined = pa.parquet.read_table("out.parquet")
    assert joined.column_names == ["label", "event_timestamp", "instrument_id", "vol_20", "ret_1", "ts", "available_at", "quality_flags"]
    assert joined["label"].to_pylist() == [str(n) for n in (*reversed(range(60)), 0, 1, 2)]
    missing = joined["ts"].null_count
    assert 0 < missing < 63
    assert done.json == {"rows": 63, "found": 63 - missing, "out": "out.parquet"}
    for row in joined.to_pylist():
        assert row["available_at"] is None or f"{row['available_at']:%Y-%m-%dT%H:%M:%SZ}" <= row["event_timestamp"]
        assert row["instrument_id"] != "NOBODY" or row["ts"] is None
    aged = asof("join", "my_v1", "rows.csv", "-t", "1d", "-o", "aged.csv", "--max-age", "12h", "--json").json
    assert int(str(aged["found"])) < 63 - missing


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "rows.csv",
            "instrument_id,event_timestamp\nALFA,2024-03-01\n",
            "rows.csv: row 1.*no zone|row 1: event_timestamp=2024-03-01 has no zone",
        ),
        (
            "rows.csv",
            "instrument_id,event_timestamp\nALFA,2024-03-01T00:00:00Z,extra\n",
            "rows.csv line 2: the line has 3 columns, the header 2",
        ),
        ("rows.jsonl", '{"instrument_id": "A", "event_timestamp": "2024-03-01T00:00:00Z"}\n{oops\n', "rows.jsonl line 2"),
        ("rows.csv", "instrument_id,event_timestamp\n,2024-03-01T00:00:00Z\n", "row 1: instrument_id is missing"),
        ("rows.csv", "instrument_id,event_timestamp,ret_1\nA,2024-03-01T00:00:00Z,1\n", "the entities already have ret_1"),
    ],
)
def test_a_join_refuses_rows_that_it_cannot_place_rather_than_losing_them(
    asof: Command, project: Path, name: str, content: str, message: str
) -> None:
    import re

    (project / name).write_text(content)
    done = asof("join", "my_v1", name, "-t", "1d", "-o", "out.csv")
    assert done.code == 4
    assert re.search(message, done.said)
    assert not (project / "out.csv").exists()


def test_a_join_of_no_rows_writes_no_rows(asof: Command, project: Path) -> None:
    (project / "rows.csv").write_text("instrument_id,event_timestamp,label\n")
    assert asof("join", "my_v1", "rows.csv", "-t", "1d", "-o", "out.parquet", "--json").json["rows"] == 0
    assert pa.parquet.read_table("out.parquet").column_names[:4] == ["instrument_id", "event_timestamp", "label", "ret_1"]


def test_a_join_that_csv_cannot_hold_is_refused_with_the_mend(asof: Command, project: Path) -> None:
    rows = [{"instrument_id": "ALFA", "event_timestamp": "2024-03-01T00:00:00Z", "extra": {"a": 1}}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), "rows.parquet")
    done = asof("join", "my_v1", "rows.parquet", "-t", "1d", "-o", "out.csv")
    assert done.code == 4
    assert "column extra holds struct<a: int64>, which CSV cannot hold: write .parquet or .arrow" in done.said
    assert list(project.glob("*out.csv*")) == []


def test_doctor_finds_what_is_there(asof: Command, project: Path) -> None:
    done = asof("doctor", "--json")
    assert done.code == 0
    findings = {f["what"]: (f["state"], f["detail"]) for f in done.json["findings"]}  # type: ignore[attr-defined]
    assert (
        findings["rows"] == ("ok", "bars 1,300, events 2,154, my_v1 1,300, quarantine 0, feature_quality_log 0")
        or "my_v1 1,300" in findings["rows"][1]
    )
    assert findings["registry"] == ("ok", "my_v1")
    assert findings["settings"] == ("ok", "asof.toml")


def test_doctor_names_what_is_broken_with_its_mend_and_ends_with_1(asof: Command, project: Path) -> None:
    (project / "asof.toml").write_text("stor = 'x'")
    done = asof("doctor")
    assert done.code == 1
    assert "bad" in done.text
    assert "did you mean 'store'?" in " ".join(done.text.split())
    assert "Traceback" not in done.errors


def test_doctor_in_an_empty_folder_says_how_to_begin_and_makes_nothing(asof: Command, folder: Path) -> None:
    done = asof("doctor")
    assert done.code == 0
    assert "asof init DIR" in done.text
    assert "asof ingest bars" in done.text
    assert list(folder.iterdir()) == []


def test_the_demo_shows_the_whole_job_and_may_be_run_again(asof: Command, folder: Path) -> None:
    for _ in range(2):
        done = asof("demo", "--dir", "here")
        assert done.code == 0, done.errors
        assert "computed again, 0 changed" in done.text
        assert "the newest vectors" in done.text
        assert '"schema_version": "features.v1"' in done.text
        assert "look further: asof get fs_v1 -t 1d --store here/demo.duckdb" in done.text
    assert {p.name for p in (folder / "here").iterdir()} >= {"demo.duckdb", "data", "training.parquet", "fs_v1.png"}
    assert asof("get", "fs_v1", "-t", "1d", "--store", "here/demo.duckdb", "--latest").code == 0


def test_a_store_in_use_is_told_by_its_holder_and_ends_with_5(asof: Command, project: Path) -> None:
    from tests.processes import finish, python

    code = "from asof.stores.duckdb import DuckDBStore\nwith DuckDBStore('asof.duckdb'): print('open', flush=True); input()"
    holder = python(code, project)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    done = asof("get", "my_v1", "-t", "1d")
    doctor = asof("doctor")
    finish(holder)
    assert done.code == 5
    assert f"asof.duckdb is held by process {holder.pid}" in done.said
    assert "Where that is asof run or asof serve, read through it (--store http://127.0.0.1:8000" in done.said
    assert doctor.code == 1
    assert f"held by process {holder.pid}" in " ".join(doctor.text.split())


@pytest.mark.parametrize("name", ["get", "join"])
def test_a_command_that_reads_makes_no_store_of_a_mistyped_name(asof: Command, project: Path, name: str) -> None:
    done = asof(*LINES[name].split(), "--store", "asoff.duckdb")
    assert (done.code, "asoff.duckdb does not exist" in done.said) == (5, True)
    assert not (project / "asoff.duckdb").exists()


def test_a_store_of_a_newer_layout_ends_with_5(asof: Command, folder: Path) -> None:
    with DuckDBStore("asof.duckdb"):
        pass
    with duckdb.connect("asof.duckdb") as connection:
        connection.execute("UPDATE layout SET version = 99")
    done = asof("plan")
    assert done.code == 5
    assert "upgrade asof" in done.said


def test_what_has_changed_is_computed_and_nothing_else(asof: Command, project: Path) -> None:
    assert asof("backfill", "my_v1", "-t", "1d", "--changed", "--json").json["unchanged"] == 1300  # the first time everything
    assert asof("backfill", "my_v1", "-t", "1d", "--changed", "--json").json["computed"] == 0
    lines = (project / "late.csv").write_text("instrument_id,ts,close\nALFA,2030-01-02T00:00:00Z,5\nALFA,2024-07-01T00:00:00Z,7\n")
    assert lines
    assert asof("ingest", "bars", "late.csv", "-t", "1d").code == 0
    done = asof("backfill", "my_v1", "-t", "1d", "--changed", "--json").json
    assert done["computed"] == asof_lookback(asof)
    assert asof("backfill", "my_v1", "-t", "1d", "--changed", "--json").json["computed"] == 0
    assert asof("backfill", "my_v1", "-t", "1d", "--json").json["corrected"] == 0


def asof_lookback(asof: Command) -> int:
    """Bars that a changed one of `my_v1` reaches."""
    return next(s.lookback for s in from_file(Path("features.py")))


def test_changed_is_for_all_instruments_and_times(asof: Command, project: Path) -> None:
    done = asof("backfill", "my_v1", "-t", "1d", "--changed", "--from", "2024-01-01")
    assert (done.code, "what has changed is computed for all instruments and times" in done.said) == (2, True)


def test_vectors_of_what_was_known_at_a_moment_go_to_a_file(asof: Command, project: Path) -> None:
    before = datetime.now(UTC).isoformat()
    (project / "correction.csv").write_text("instrument_id,ts,close\nALFA,2024-06-10T14:30:00Z,99\n")
    asof("ingest", "bars", "correction.csv", "-t", "1d")
    for known, name in ((before, "then.csv"), (datetime.now(UTC).isoformat(), "now.csv"), ("2020-01-01", "none.csv")):
        done = asof("backfill", "my_v1", "-t", "1d", "-i", "ALFA", "--known-at", known, "--out", name, "--json")
        assert (done.code, done.json.get("computed", 0)) == ((6, 0) if name == "none.csv" else (0, 260))
    stored = asof("get", "my_v1", "-t", "1d", "-i", "ALFA", "--format", "csv", "--known-at", before).text
    without_time = [line.rpartition(",")[0] for line in stored.splitlines()]  # the last column is when they were computed
    assert [line.rpartition(",")[0] for line in Path("then.csv").read_text().splitlines()] == without_time
    assert [line.rpartition(",")[0] for line in Path("now.csv").read_text().splitlines()] != without_time
    assert asof("backfill", "my_v1", "-t", "1d", "--known-at", before).code == 2
    assert asof("verify", "my_v1", "-t", "1d").code == 1  # the correction has not been backfilled


def test_a_vector_that_is_not_what_its_inputs_give_is_found_and_explained(asof: Command, project: Path) -> None:
    assert asof("verify", "my_v1", "-t", "1d").text == (
        "my_v1 1d: all equal: 1,300 equal, 0 different, 0 missing, 0 that should not be there\n"
    )
    with duckdb.connect("asof.duckdb") as connection:
        connection.execute("UPDATE my_v1 SET vol_20 = vol_20 + 1e-15 WHERE instrument_id = 'ALFA' AND ts = '2024-06-10 14:30:00Z'")
        connection.execute("DELETE FROM my_v1 WHERE instrument_id = 'ECHO' AND ts = '2024-06-11 14:30:00Z'")
    done = asof("verify", "my_v1", "-t", "1d", "--json")
    assert (done.code, done.json["right"]) == (1, False)
    assert [done.json[name] for name in ("equal", "different", "missing", "extra")] == [1298, 1, 1, 0]
    assert [(e["instrument"], e["column"]) for e in done.json["examples"]] == [("ALFA", "vol_20"), ("ECHO", "")]
    assert asof("verify", "my_v1", "-t", "1d", "--against", "replay", "--json").json["different"] == 1
    told = asof("verify", "my_v1", "-t", "1d", "--explain", "0")
    assert "look closer: asof explain my_v1 -t 1d -i ALFA --ts 2024-06-10T14:30:00+00:00" in told.text
    told = asof("verify", "my_v1", "-t", "1d", "--explain", "2")
    assert ("look closer" in told.text, "ret_5 = " in told.text) == (False, False)
    assert "vol_20 = 0." in told.text
    assert "no change of an input is known since: the vector or an input was changed behind the store's back" in told.text
    assert "cause: no backfill has followed the bar" in told.text
    assert "stored 0." in asof("explain", "my_v1", "-t", "1d", "-i", "ALFA", "--ts", "2024-06-10T14:30:00Z").text
    assert asof("verify", "my_v1", "-t", "1d", "--instrument", "BRAVO").code == 0
    assert asof("verify", "my_v1", "-t", "1d", "--sample", "2", "--json").json["equal"] in (519, 520)


def test_the_input_that_was_corrected_is_named_as_the_cause(asof: Command, project: Path) -> None:
    (project / "late.csv").write_text("instrument_id,ts,close\nALFA,2024-06-10T14:30:00Z,99\n")
    asof("ingest", "bars", "late.csv", "-t", "1d")
    told = asof("verify", "my_v1", "-t", "1d")
    assert told.code == 1
    assert "from inputs that were others then (1 changed since); a backfill mends it" in told.text
    assert re.search(r"\n  bars 2024-06-10 14:30:00\+00:00: .*close [0-9.]+ -> 99.0, .*since 20", told.text)
    assert "look closer: asof explain my_v1 -t 1d -i ALFA --ts 2024-06-11T" in told.text
    (cause,) = asof("verify", "my_v1", "-t", "1d", "--json").json["causes"]  # type: ignore[misc, attr-defined]
    assert (cause["accounted"], cause["changed"][0]["now"]["close"], len(cause["explained"]["bars"])) == (True, 99.0, 21)
    assert asof("backfill", "my_v1", "-t", "1d").code == 0
    assert asof("verify", "my_v1", "-t", "1d", "--json").json["causes"] == []


def test_a_replay_goes_into_a_store_of_its_own(asof: Command, project: Path) -> None:
    done = asof("replay", "my_v1", "-t", "1d", "--into", "duckdb:///replay.duckdb")
    assert "my_v1 1d: 1,300 vectors came to be and 0 were corrected since, in duckdb:///replay.duckdb (1,300 computed" in done.text
    for out in ("one.csv", "other.csv"):
        store = () if out == "one.csv" else ("--store", "duckdb:///replay.duckdb")
        assert asof("get", "my_v1", "-t", "1d", "-o", out, *store).code == 0
    one, other = ([line.split(",")[:-1] for line in Path(name).read_text().splitlines()] for name in ("one.csv", "other.csv"))
    assert one == other
    again = asof("replay", "my_v1", "-t", "1d", "--into", "duckdb:///replay.duckdb")
    assert (again.code, "begins with an empty store" in again.said) == (5, True)
    fast = asof("replay", "my_v1", "-t", "1d", "--speed", "fast")
    assert (fast.code, "neither max nor a number of times" in fast.said) == (3, True)


def test_a_replay_by_every_moment_knows_each_vector_from_when_it_could_be_known(asof: Command, project: Path) -> None:
    some = ("-i", "ALFA", "--from", "2024-12-20", "--into", "duckdb:///moments.duckdb")
    assert asof("replay", "my_v1", "-t", "1d", "--every-moment", *some).code == 0
    then = ("--known-at", "2024-12-27T00:00:00Z", "--store", "duckdb:///moments.duckdb")
    found = asof("get", "my_v1", "-t", "1d", "-o", "then.csv", *then)
    assert found.code == 0
    days = [line.split(",")[2].strip('"')[:10] for line in Path("then.csv").read_text().splitlines()[1:]]
    assert days[-1] == "2024-12-25", "the bar of the 26th closes a day after its open"


def test_a_bar_that_is_not_there_cannot_be_explained(asof: Command, project: Path) -> None:
    done = asof("explain", "my_v1", "-t", "1d", "-i", "ALFA", "--ts", "2024-06-09T14:30:00Z")
    assert (done.code, "no 1d bar of ALFA that opens at 2024-06-09T14:30:00+00:00; the last one before is 2024-06-07" in done.said) == (
        6,
        True,
    )


def test_what_was_known_at_a_moment_is_read_back(asof: Command, project: Path) -> None:
    before = datetime.now(UTC).isoformat()
    (project / "correction.csv").write_text("instrument_id,ts,close\nALFA,2024-06-10T14:30:00Z,99\n")
    newest = asof("get", "my_v1", "-t", "1d", "-i", "ALFA", "--format", "csv").text
    asof("ingest", "bars", "correction.csv", "-t", "1d")
    asof("backfill", "my_v1", "-t", "1d", "--json")
    corrected = asof("get", "my_v1", "-t", "1d", "-i", "ALFA", "--format", "csv").text
    then = asof("get", "my_v1", "-t", "1d", "-i", "ALFA", "--format", "csv", "--known-at", before).text
    assert corrected != newest
    assert then == newest
    for known, found in (("2020-01-01", 0), (before, 1)):
        (project / "one.csv").write_text("instrument_id,event_timestamp\nALFA,2024-06-12T00:00:00Z\n")
        done = asof("join", "my_v1", "one.csv", "-t", "1d", "-o", "out.csv", "--known-at", known, "--json")
        assert done.json["found"] == found


def test_actions_are_ingested_and_explained(asof: Command, project: Path) -> None:
    sets = project / "features.py"
    sets.write_text(
        "from asof import FeatureSet, bars\n\n"
        'total_v1 = FeatureSet("total_v1", {"ret_1": bars.adjusted.close / bars.adjusted.close.lag(1) - 1})\n'
    )
    assert "1 accepted" in asof("ingest", "actions", "splits.csv").text
    assert asof("backfill", "total_v1", "-t", "1d").code == 0
    told = asof("explain", "total_v1", "-t", "1d", "-i", "ALFA", "--ts", "2024-06-10T14:30:00Z").text
    assert "1 splits and dividends" in told
    wrong = asof("ingest", "actions", "splits.csv", "--format", "lean-factor")
    assert wrong.code == 4
    assert "did you mean 'lean-factors'?" in wrong.said


def test_bars_are_ingested_by_a_map_of_tickers(asof: Command, project: Path) -> None:
    (project / "map.csv").write_text("instrument_id,ticker,from,to\nNEW,OLD,,2024-06-10\n")
    (project / "old.csv").write_text("instrument_id,ts,close\nOLD,2024-06-10T14:30:00Z,1\nOLD,2024-06-11T14:30:00Z,1\n")
    done = asof("ingest", "bars", "old.csv", "-t", "1d", "--map", "map.csv", "--json").json
    assert (done["accepted"], done["reasons"]) == (1, {"unmapped_ticker": 1})
