"""The documentation says what is true: reference pages are what the source says, links lead somewhere, and every example runs.

A fenced block is run by its language: `python` as a program (the blocks of one page share their names), `pycon` as a doctest, `sh` in
a shell with `asof` on its path, `sql` against a store. They run in a folder that `asof init` has made. A block is left out only behind
`<!-- not run: why -->`.
"""

from __future__ import annotations

import ast
import doctest
import linecache
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from asof import connect, errors
from asof.cli.app import COMMANDS, GROUPS
from asof.config import ConfigError, Settings
from asof.features.library import SHIPPED
from asof.operators import OPERATORS
from asof.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
ON_POSTGRES = ("postgres.md", "kafka.md", "operations.md", "troubleshooting.md")
"""The pages whose queries are for a server."""
SCRIPT = ROOT / "scripts" / "generate_reference.py"

FENCE = re.compile(r"(?P<mark><!-- not run: .+? -->\n+)?^```(?P<language>[a-z]*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the line of its page that it begins on."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{named(self.page)}:{self.line}"


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks of these languages that are to run."""
    text = read(page)
    return [
        Block(page, text[: found.start("text")].count("\n") + 1, found["language"], found["text"])
        for found in FENCE.finditer(text)
        if found["language"] in languages and not found["mark"]
    ]


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


def run(command: list[str], cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False)


def shell(script: str, folder: Path) -> None:
    """Run a script in a folder, with a command `asof` that is this checkout's."""
    commands = folder / ".commands"
    commands.mkdir(exist_ok=True)
    command = commands / "asof"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from asof.cli import main; main()' \"$@\"\n")
    command.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ASOF_", "FEATURE_"))}
    environment |= {"PATH": f"{commands}{os.pathsep}{environment['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    done = run(["sh", "-eu", "-c", script], cwd=folder, env=environment)
    assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from `asof init`, its store filled: sample data, a corrected bar, a refused row, vectors of `fs_v1` before and after."""
    folder = tmp_path_factory.mktemp("docs")
    fill(str(folder / "asof.duckdb"), folder)
    return folder


def fill(url: str, folder: Path) -> None:
    """What the examples of a page are about."""
    shell("asof init", folder)
    with connect(url) as store:
        store.ingest_bars(folder / "data" / "bars.parquet")
        store.ingest_events(folder / "data" / "events.jsonl")
        store.backfill("fs_v1", "1d")
        later = folder / "corrections.csv"
        later.write_text("instrument_id,ts,close,volume\nALFA,2024-06-10T14:30:00Z,41.5,1000\nALFA,2024-06-11T14:30:00Z,41,-1\n")
        store.ingest_bars(later, timeframe="1d")
        store.backfill("fs_v1", "1d")
        store.store.move({"kafka/events.enriched.v1/0": "1742"})


def test_the_reference_pages_are_what_the_source_says():
    done = run([sys.executable, str(SCRIPT), "--check"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_reference_page_would_be_seen(tmp_path):
    copy = tmp_path / "scripts" / SCRIPT.name
    copy.parent.mkdir()
    copy.write_text(read(SCRIPT))
    stale = run([sys.executable, str(copy), "--check"])
    assert stale.returncode == 1
    assert "7 of 7 reference pages are stale" in stale.stdout


def test_every_command_and_its_options_are_in_the_reference():
    page = read(ROOT / "docs/reference/cli.md")
    names = [*COMMANDS, *(f"{name} {command.name}" for name, group in GROUPS.items() for command in group.registered_commands)]
    assert [name for name in names if f"\n## asof {name}\n" not in page] == []


def test_every_operator_is_in_the_reference():
    page = read(ROOT / "docs/reference/operators.md").replace("&#124;", "|")
    signatures = [operator.signature for operator in OPERATORS]
    assert [s for s in signatures if f"| `{s}` |" not in page and f"| <code>{s}</code> |" not in page] == []


def test_every_setting_is_in_the_reference():
    page = read(ROOT / "docs/reference/settings.md")
    variables = [field.validation_alias for field in Settings.model_fields.values()]
    assert [name for name in (*Settings.model_fields, *variables) if f"| `{name}` |" not in page] == []


def test_every_metric_is_in_the_reference():
    page = read(ROOT / "docs/reference/metrics.md")
    names = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    shown = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in names}
    assert [name for name in sorted(shown) if f"| `{name}` |" not in page and f"| `{name}_total` |" not in page] == []


def test_every_shipped_feature_set_is_in_the_reference_with_its_text():
    page = read(ROOT / "docs/reference/feature-sets.md")
    assert [version for version, shipped in SHIPPED.items() if shipped.text not in page or shipped.fingerprint not in page] == []


def test_every_error_is_in_the_table_with_its_exit_code():
    page = read(ROOT / "docs/errors.md")
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AsofError)]
    missing = [kind.__name__ for kind in (*kinds, ConfigError) if f"| {kind.exit_code} | `{kind.__name__}` |" not in page]
    assert missing == []


def reasons() -> set[str]:
    """The words that rows are refused with, read off the source: the arguments of the calls that refuse."""
    found = {"empty_event_id", "no_tickers", "duplicate_disagrees"}
    for path in (ROOT / "src/asof/records.py", *(ROOT / "src/asof/sources").glob("*.py")):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.Call) and called(node) in ("refuse", "add", "_refuse_text", "RefusedLine"):
                found |= {word for argument in node.args for word in words(argument)}
    return found


def called(node: ast.Call) -> str:
    return getattr(node.func, "attr", None) or getattr(node.func, "id", "")


def words(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)) if re.fullmatch(r"[a-z]+(_[a-z]+)+", text):
            yield text
        case ast.JoinedStr(values=parts) if any(isinstance(p, ast.FormattedValue) for p in parts):
            pattern = "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
            if re.fullmatch(r"[a-z_{}]+", pattern):
                yield from (pattern.format(name) for name in ("score", "confidence"))


def test_every_reason_for_refusing_a_row_is_in_the_table_and_no_other():
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| x? ?\| x? ?\| ", read(ROOT / "docs/data.md"), re.MULTILINE)
    told = {word for row in rows for word in re.findall(r"[a-z_]+", row)}
    assert told == reasons()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_inside_the_documentation_lead_somewhere(page):
    text = FENCE.sub("", read(page))
    for found in LINK.finditer(text):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{named(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(path), f"{named(page)} links to {target}#{anchor}, and there is no such heading"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown makes them."""
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in HEADING.findall(FENCE.sub("", read(page))))
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_has_a_language(page):
    bare = [found for found in FENCE.finditer(read(page)) if not found["language"]]
    assert not bare, f"{named(page)} has a block without a language: {bare[0]['text'][:60]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages_with("python") if page.name != "quickstart.md"], ids=named)
def test_the_python_of_a_page_runs(page, project, monkeypatch):
    monkeypatch.chdir(project)
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        linecache.cache[str(block)] = (len(block.text), None, block.text.splitlines(keepends=True), str(block))  # as if it were a file
        exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 # the examples of our own pages


@pytest.mark.parametrize("page", pages_with("pycon"), ids=named)
def test_the_sessions_of_a_page_answer_what_they_show(page):
    parser, failed = doctest.DocTestParser(), []
    names: dict[str, object] = {}
    for block in blocks(page, "pycon"):
        session = parser.get_doctest(block.text, names, str(block), named(page), block.line - 1)
        doctest.DocTestRunner(verbose=False).run(session, out=failed.append, clear_globs=False)
        names = session.globs
    assert not failed, "".join(failed)


@pytest.mark.slow
def test_the_quick_start_works_from_its_first_line_to_its_last(tmp_path, monkeypatch):
    page = ROOT / "docs/quickstart.md"
    shell("\n".join(block.text for block in blocks(page, "sh")), tmp_path)
    made = tmp_path / "project"
    assert (made / "training.parquet").exists()
    assert (made / "june.parquet").exists()
    monkeypatch.chdir(made)
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(page, "python"):
        exec(compile(block.text, str(block), "exec"), names)  # noqa: S102 # the examples of our own pages


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in pages_with("sh") if p.name not in ("quickstart.md", "README.md")], ids=named)
def test_the_commands_of_a_page_work(page, tmp_path):
    shell("asof init", tmp_path)
    for block in blocks(page, "sh"):
        shell(block.text, tmp_path)


def test_the_readme_names_only_targets_that_exist():
    targets = set(re.findall(r"^make (\w+)", read(ROOT / "README.md"), re.MULTILINE))
    there = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    assert targets
    assert targets <= there


@pytest.mark.slow
def test_every_query_runs_and_answers_with_rows(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    queries = [block for page in PAGES for block in blocks(page, "sql") if page.name not in ON_POSTGRES]
    assert queries
    with duckdb.connect(str(project / "asof.duckdb"), read_only=True) as connection:
        for block in queries:
            rows = connection.sql(block.text)  # None for a statement that is no question
            assert rows is None or len(rows.to_arrow_table()), f"{block} answers with nothing"


@pytest.mark.slow
def test_every_query_of_the_pages_on_postgresql_runs_and_answers_with_rows(postgres, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = postgres.database()
    fill(url, tmp_path)
    queries = [block for name in ON_POSTGRES for block in blocks(ROOT / "docs" / name, "sql")]
    assert queries
    for block in queries:
        for statement in filter(str.strip, block.text.split(";")):
            assert postgres.run(statement, url), f"{block} answers with nothing"


def test_the_picture_of_the_demo_is_there_and_small():
    picture = ROOT / "docs/images/demo.png"
    assert picture.stat().st_size < 200_000
