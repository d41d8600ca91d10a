"""People's own operators: how they become part of the language, what is refused, and what `check_operator` finds in planted bad ones."""

from __future__ import annotations

import importlib.metadata
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import asof
from asof import FeatureSet, Param, bars, events
from asof.definitions import find, from_file
from asof.engine.trial import tried
from asof.errors import DefinitionError, UnknownName, VersionConflict
from asof.features.own import known
from asof.features.text import parse_expression
from asof.operators.known import KNOWN
from asof.testing import LawBroken, check_operator

N = Param("n", minimum=1, maximum=50)
FEATURES = '''"""A project of its own."""
import asof
from asof import FeatureSet, Param, bars

SHARE = {share}


@asof.operator(shape="series", params=[Param("n", minimum=1, maximum=500)], version={version})
def span_of(out, x, n):
    """The largest of the last `n` values less the smallest, times a share."""
    for i in range(n - 1, len(x)):
        out[i] = SHARE * (x[i - n + 1 : i + 1].max() - x[i - n + 1 : i + 1].min())


own_v1 = FeatureSet("own_v1", {{"span": bars.close.span_of(3)}})
'''


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operators of one test alone."""
    monkeypatch.setattr(KNOWN, "own", {})


def features(folder: Path, share: str = "1.0", version: int = 1) -> Path:
    path = folder / "features.py"
    path.write_text(FEATURES.format(share=share, version=version))
    return path


def newest_over_mean(out, x, n):
    """The newest value less the mean of the last `n`."""
    for i in range(n - 1, len(x)):
        total = 0.0
        for k in range(i - n + 1, i + 1):
            total += x[k]
        out[i] = x[i] - total / n


def tilt(a, b, share):
    """The share of a in a and b."""
    return share * a / (a + b) if a + b != 0.0 else math.inf


def trimmed(values, cut):
    """The mean of the values that are there, without the largest and the smallest share `cut` of them."""
    ordered = np.sort(values)
    leave = int(cut * len(ordered))
    total = 0.0
    for i in range(leave, len(ordered) - leave):
        total += ordered[i]
    return total / (len(ordered) - 2 * leave)


def range_of(x):
    """How far the values of a window's events lie apart."""
    return x.max() - x.min()


GOOD: dict[Callable[..., object], dict[str, object]] = {
    newest_over_mean: {"shape": "series", "params": [N], "scaling": "same"},
    tilt: {"shape": "row", "params": [Param("share", float, 0, 1, default=1)]},
    trimmed: {"shape": "present", "params": [N, Param("cut", float, 0, 0.4), Param("min_count", minimum=1, named=True)]},
    range_of: {"shape": "window", "minimum": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", GOOD, ids=lambda kernel: kernel.__name__)
def test_an_honest_operator_passes(kernel):
    assert asof.operator(**GOOD[kernel])(kernel) is kernel
    check_operator(kernel)


def test_own_operators_are_methods_of_expressions_and_compute():
    for kernel, given in GOOD.items():
        asof.operator(**given)(kernel)
    assert tried(bars.close.newest_over_mean(2), close=[1, 3, None, 4, 8]) == [None, 1.0, None, None, 2.0]
    assert tried(bars.close.tilt(bars.open), close=[1, 3, 1], open=[1, 1, -1]) == [0.5, 0.75, math.inf]
    assert tried(bars.close.trimmed(3, 0.4, min_count=2), close=[1, None, 3, 8]) == [None, None, 2.0, 5.5]
    assert "newest_over_mean" in dir(bars.close)
    assert repr(bars.close.tilt(bars.open)) == "bars.close.tilt(bars.open, share=1)"
    assert parse_expression("bars.close.tilt(bars.open, share=1)") is bars.close.tilt(bars.open)
    news = events.window("1h").sentiment.range_of()
    assert parse_expression(repr(news)) is news
    with pytest.raises(DefinitionError, match="n=0 must be at least 1"):
        bars.close.newest_over_mean(0)
    with pytest.raises(UnknownName, match="did you mean 'newest_over_mean'"):
        bars.close.newest_over_meen(2)
    assert bars.adjusted.close.newest_over_mean(2).lookback == 2
    with pytest.raises(DefinitionError, match="trimmed does not say what a split makes of"):
        bars.adjusted.close.trimmed(3, 0.1, min_count=2)


def test_the_text_of_a_set_names_its_own_operators_and_reads_back_only_with_them(tmp_path: Path):
    (defined,) = from_file(features(tmp_path))
    head, line, _ = defined.text.splitlines()
    digest = known("span_of").digest
    assert (head, line) == ("feature set own_v1", f"operator span_of version 1 {digest}")
    assert FeatureSet.parse(defined.text) == defined
    assert pickle.loads(pickle.dumps(defined)) == defined  # noqa: S301  # what it holds is the text
    KNOWN.own.clear()
    with pytest.raises(DefinitionError, match=rf"own_v1 uses the operator span_of, version 1 \({digest}\), which is not known here: load"):
        FeatureSet.parse(defined.text)
    with pytest.raises(UnknownName):
        bars.close.span_of(3)


def test_a_file_that_is_loaded_again_gives_the_same_operator(tmp_path: Path):
    (once,) = from_file(features(tmp_path))
    (again,) = from_file(features(tmp_path))
    assert again.features["span"] is once.features["span"]


@pytest.mark.parametrize(("share", "version"), [("2.0", 1), ("1.0", 2)])
def test_a_changed_function_is_noticed_under_its_old_version_and_a_new_one(tmp_path: Path, share: str, version: int):
    with asof.connect("duckdb://") as store:
        (before,) = from_file(features(tmp_path))
        store.apply(before)
        (after,) = from_file(features(tmp_path, share, version))
        assert after.fingerprint != before.fingerprint
        with pytest.raises(VersionConflict, match=r"-operator span_of version 1 [0-9a-f]{16}\n\+operator span_of version"):
            store.apply(after)
        with pytest.raises(DefinitionError, match=r"here it is version .* restore that function"):
            find("own_v1", store.settings, store.registered())


def test_comments_layout_and_docstrings_are_no_change(tmp_path: Path):
    (before,) = from_file(features(tmp_path))
    path = tmp_path / "features.py"
    path.write_text(path.read_text().replace("The largest", "The  largest").replace("    for i", "    # a loop\n\n    for i"))
    assert from_file(path) == [before]


def test_the_settings_file_brings_operators_to_a_store_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    features(tmp_path)
    Path("asof.toml").write_text('store = "duckdb:///own.duckdb"\nfeatures = "features.py"\n')
    with asof.connect() as store:
        store.apply("own_v1")
    KNOWN.own.clear()
    with asof.connect() as store:
        assert store.definition("own_v1").lookback == 3


def test_an_entry_point_is_loaded_for_a_name_that_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "span_package.py").write_text(FEATURES.format(share="1.0", version=1).partition("own_v1 =")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(KNOWN, "_looked", False)
    points = [importlib.metadata.EntryPoint("spans", "span_package", "asof.operators")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    assert tried(bars.close.span_of(2), close=[1, 4]) == [None, 3.0]
    sys.modules.pop("span_package")
    points[:] = [importlib.metadata.EntryPoint("spans", "no_such_package", "asof.operators")]
    monkeypatch.setattr(KNOWN, "_looked", False)
    with pytest.raises(DefinitionError, match=r"the entry point spans = no_such_package of asof\.operators cannot be loaded"):
        bars.close.other_span(2)


def test_a_name_of_two_modules_is_refused(tmp_path: Path):
    from_file(features(tmp_path))
    other = tmp_path / "others.py"
    other.write_text(FEATURES.format(share="3.0", version=1))
    with pytest.raises(DefinitionError, match="span_of of asof_project_others is already defined otherwise by asof_project_features"):
        from_file(other)


WORDS: list[float] = []


def keeps_a_list(out, x, n):
    """Reads a list."""
    out[:] = len(WORDS)


def writes_a_global(out, x, n):
    """Writes a global."""
    global COUNTED  # noqa: PLW0603  # that it does is what is tested
    COUNTED = 1
    out[:] = x


def uses_what_comes_later(out, x, n):
    """Uses a name that nobody has defined."""
    out[:] = defined_later  # noqa: F821  # that it is not there is what is tested


def with_default(out, x, n=3):
    """Has a default."""


def silent(out, x, n):
    out[:] = x


def mixed(out, n, x):
    """Takes its params before its inputs."""


def plain(out, x, n):
    """The value itself."""
    out[:] = x


@pytest.mark.parametrize(
    ("kernel", "given", "said"),
    [
        (keeps_a_list, {}, "uses WORDS, list: a kernel may use plain functions, numbers and math"),
        (writes_a_global, {}, "writes the global COUNTED: a kernel keeps nothing"),
        (uses_what_comes_later, {}, "uses defined_later, which is not defined yet"),
        (with_default, {}, "takes plain arguments without defaults"),
        (silent, {}, "silent has no docstring"),
        (mixed, {}, "does not end with its params n"),
        (plain, {"shape": "serie"}, "shape 'serie' is not one of .* did you mean 'series'"),
        (plain, {"shape": "sum"}, "shape 'sum' is not one of"),
        (plain, {"scaling": "sane"}, "scaling 'sane' is not one of .* did you mean 'same'"),
        (plain, {"params": []}, "looks at bars: its first param is how many"),
        (plain, {"params": [Param("n")]}, "looks at bars: its first param is how many"),
        (plain, {"name": "mean"}, "'mean' has the name of one that ships with asof: choose another, such as my_mean"),
        (plain, {"name": "diff"}, "has the name of one that ships"),
        (plain, {"name": "lookback"}, "has the name of one that ships"),
        (plain, {"name": "Plain"}, "a name is a small letter"),
        (plain, {"version": 0}, "version=0 is not a whole number from 1 on"),
        (plain, {"shape": "present"}, "its last param is Param"),
        (plain, {"shape": "window", "params": []}, "is no window: it takes 1 to 2 inputs"),
        (math.sqrt, {}, "an operator is a plain function"),
    ],
)
def test_what_can_be_no_operator_is_refused_and_told_why(kernel, given, said):
    with pytest.raises(DefinitionError, match=said):
        asof.operator(**{"shape": "series", "params": [N]} | given)(kernel)


def test_what_numba_cannot_compile_is_told_with_the_operators_name():
    def worded(out, x, n):
        """Uses what Numba does not know."""
        out[:] = float("a b".partition(" ")[0].encode("utf-8").hex().format_map({}))

    asof.operator(shape="series", params=[N])(worded)
    with pytest.raises(DefinitionError, match="operator worded cannot be compiled by Numba"):
        tried(bars.close.worded(2), close=[1.0])


def looks_ahead(out, x, n):
    """The next value."""
    out[:] = math.nan
    for i in range(len(x) - 1):
        out[i] = x[i + 1]


def adds_up(out, x, n):
    """The sum since the first bar."""
    total = 0.0
    for i in range(len(x)):
        total += x[i]
        out[i] = total


def rolls(out, x, n):
    """A running sum: the newest in, the oldest out."""
    total = 0.0
    for i in range(len(x)):
        total += x[i] - (x[i - n] if i >= n else 0.0)
        out[i] = total


def looks_one_further(out, x, n):
    """The change over n bars, which needs one more than it says."""
    for i in range(len(x)):
        out[i] = x[i] - x[i - n] if i >= n else math.nan


def leaves_its_arrays(out, x, n):
    """Reads behind the last row."""
    for i in range(len(x)):
        out[i] = 0.0 * x[i + n] + x[i]


def wraps_around(out, x, n):
    """Reads row -1 where there is none before."""
    for i in range(len(x)):
        out[i] = x[i] - x[i - 1]


def forgets_rows(out, x, n):
    """Fills every second row."""
    for i in range(0, len(x), 2):
        out[i] = x[i]


def spoils_its_input(out, x, n):
    """Writes into what others read."""
    for i in range(len(x)):
        x[i] = 2.0 * x[i]
        out[i] = x[i]


def throws_dice(out, x, n):
    """Not the same twice."""
    for i in range(len(x)):
        out[i] = x[i] + np.random.random()  # noqa: NPY002  # what Numba compiles


def divides(out, x, n):
    """A division by zero that Python would not take."""
    for i in range(len(x)):
        out[i] = 1 / (n - n)


BAD = {
    looks_ahead: "looks ahead",
    adds_up: "looks further back than|depends on where the data begins",
    rolls: "looks further back than|depends on where the data begins",
    looks_one_further: "looks further back than|depends on where the data begins",
    leaves_its_arrays: "leaves its arrays",
    wraps_around: "leaves its arrays: row -1",
    forgets_rows: "fill every row",
    spoils_its_input: "writes into its inputs",
    throws_dice: "fill every row|compiled|again",
    divides: "divides by zero",
}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", BAD, ids=lambda kernel: kernel.__name__)
def test_a_planted_bad_operator_is_caught(kernel):
    asof.operator(shape="raw", params=[N])(kernel)
    with pytest.raises(LawBroken, match=BAD[kernel]):
        check_operator(kernel)


def test_what_is_no_operator_cannot_be_checked():
    with pytest.raises(DefinitionError, match=r"put @asof\.operator"):
        check_operator(silent)
    with pytest.raises(DefinitionError, match="no operator of anybody's own is called 'nothing'"):
        check_operator("nothing")
