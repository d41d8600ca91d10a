"""Feature sets: names, lookback, fingerprint, difference, and their way through pickle."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from asof.errors import DefinitionError, NotFound
from asof.features.expression import Expr, bars, constant, events
from asof.features.feature_set import COMPUTATION_ERROR, MOST_FLAGS, RESERVED, FeatureSet
from asof.features.library.fs_v1 import build, fs_v1

HOUR = 3_600_000_000
FS_V1 = "bdf77f0994de89e3781fa89ce6478188ac142102d46eb3beb19265a6bef338c3"
"""The fingerprint of `fs_v1` as it was first released; a change of it is a change of the definition and needs a new version."""

ret = bars.close / bars.close.lag(1) - 1
news = events.window("1h")
FEATURES = {"ret": ret, "vol": ret.std(20, ddof=0), "mood": news.sentiment.mean()}
FLAGS = {"NO_EVENTS": news.count() == 0, "LOSS": ret < 0}


def made(features: dict[str, Expr] | None = None, flags: dict[str, Expr] | None = None, version: str = "v1") -> FeatureSet:
    """The small set of these tests, or one beside it."""
    return FeatureSet(version, FEATURES if features is None else features, FLAGS if flags is None else flags)


def test_the_fingerprint_of_fs_v1_is_what_it_was():
    assert fs_v1.fingerprint == FS_V1


def test_a_fingerprint_is_the_same_in_every_process():
    code = "import asof; from tests.features.test_feature_set import made; print(asof.fs_v1.fingerprint, made().fingerprint)"
    for seed in ("1", "2"):
        environment = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert done.stdout.split() == [FS_V1, made().fingerprint]


CHANGED = {
    "version": made(version="v2"),
    "a feature more": made(FEATURES | {"more": ret.lag(1)}),
    "a feature less": made({k: v for k, v in FEATURES.items() if k != "mood"}),
    "a feature's name": made({"ret_1" if k == "ret" else k: v for k, v in FEATURES.items()}),
    "a feature's parameter": made(FEATURES | {"vol": ret.std(21, ddof=0)}),
    "a feature's default": made(FEATURES | {"vol": ret.std(20)}),
    "a feature's order of operands": made(FEATURES | {"ret": -1 + bars.close / bars.close.lag(1)}),
    "a feature's constant": made(FEATURES | {"ret": bars.close / bars.close.lag(1) - 1.0000000000000002}),
    "the order of features": made(dict(reversed(FEATURES.items()))),
    "a window": made(FEATURES | {"mood": events.window("2h").sentiment.mean()}),
    "a column": made(FEATURES | {"mood": news.confidence.mean()}),
    "a flag more": made(flags=FLAGS | {"GAIN": ret > 0}),
    "a flag less": made(flags={"LOSS": ret < 0}),
    "a flag's name": made(flags={"NONE": news.count() == 0, "LOSS": ret < 0}),
    "a flag's limit": made(flags=FLAGS | {"LOSS": ret < -0.0}),
    "the order of flags": made(flags=dict(reversed(FLAGS.items()))),
    "the same feature twice": made(FEATURES | {"again": ret}),
}


@pytest.mark.parametrize("what", CHANGED)
def test_the_fingerprint_changes_with(what: str):
    assert CHANGED[what].fingerprint != made().fingerprint
    assert CHANGED[what] != made()
    assert len({s.fingerprint for s in CHANGED.values()}) == len(CHANGED)


def test_the_fingerprint_does_not_change_with_how_a_set_was_written():
    again = FeatureSet(
        "v1",
        {"ret": bars.close / bars.close.lag(n=1) - 1.0, "vol": FEATURES["vol"], "mood": events.window("60m").sentiment.mean()},
        dict(FLAGS),
    )
    assert again.fingerprint == made().fingerprint
    assert again == made()
    assert hash(again) == hash(made())


def test_the_fingerprint_changes_with_the_meaning_of_an_operator(monkeypatch: pytest.MonkeyPatch):
    before, plain = made().fingerprint, FeatureSet("plain", {"x": bars.close + 1})
    unchanged = plain.fingerprint
    monkeypatch.setitem(vars(FEATURES["vol"].operator), "version", 2)
    assert made().fingerprint != before
    assert FeatureSet.parse(plain.text).fingerprint == unchanged


def test_lookback_and_event_window_follow_from_the_expressions():
    assert fs_v1.lookback == 21
    assert fs_v1.event_window == HOUR
    assert build("1440m").event_window == 24 * HOUR
    assert made(flags={"OLD": events.window("2d").count() + bars.close.lag(30) > 0}).lookback == 31
    assert made(flags={"OLD": events.window("2d").count() > 0}).event_window == 48 * HOUR
    assert FeatureSet("plain", {"x": bars.close}).event_window == 0


def test_flags_keep_their_order_and_the_engine_s_own_is_last():
    assert made().flag_names == ("NO_EVENTS", "LOSS", COMPUTATION_ERROR)
    assert len(fs_v1.flag_names) == 7


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_are_no_names(word: str):
    for name in (word, word.upper()):
        for build_one in (lambda n: made({n: ret}), lambda n: made(flags={n: ret}), lambda n: made(version=n)):
            with pytest.raises(DefinitionError, match=f"'{name}' is a reserved word; choose another, such as '{name}_1'"):
                build_one(name)


@pytest.mark.parametrize("word", ["lambda", "None", "True", "in", "return", "COMPUTATION_ERROR"])
def test_names_that_the_text_could_not_hold_are_refused(word: str):
    with pytest.raises(DefinitionError, match="is a reserved word"):
        made({word: ret})


@pytest.mark.parametrize("name", ["", "1st", "_hidden", "ret-1", "ret 1", "ret;drop", 'ret"', "é", "a" * 64, "ret\n", "ret.1", 1, None])
def test_names_that_no_table_could_hold_are_refused(name: object):
    for build_one in (lambda: made({name: ret}), lambda: made(flags={name: ret}), lambda: made(version=name)):  # type: ignore[dict-item, arg-type]
        with pytest.raises(DefinitionError, match="must be a letter, then up to 62 letters, digits or underscores"):
            build_one()


@pytest.mark.parametrize("expression", [news.sentiment, constant(1), 1, "bars.close", None, bars.count(3).inputs[0]])
def test_a_feature_that_is_not_over_bars_is_refused(expression: object):
    for build_one in (lambda: made({"x": expression}), lambda: made(flags={"X": expression})):  # type: ignore[dict-item]
        with pytest.raises(DefinitionError, match="of v1 is not an expression over bars"):
            build_one()


def test_a_set_without_features_with_twins_or_with_too_many_flags_is_refused():
    with pytest.raises(DefinitionError, match="feature set v1 has no features"):
        made({})
    with pytest.raises(DefinitionError, match="differ only in case: ret"):
        made({"ret": ret, "Ret": -ret})
    with pytest.raises(DefinitionError, match="flags of v1 differ only in case: quiet"):
        made({"ret": bars.close}, {"QUIET": bars.close > 1, "Quiet": bars.close > 2})
    flags = {f"F{k}": ret > k for k in range(MOST_FLAGS + 1)}
    with pytest.raises(DefinitionError, match="has 63 flags; at most 62 fit"):
        made(flags=flags)
    assert len(made(flags=dict(list(flags.items())[:-1])).flag_names) == 63


def test_a_set_cannot_be_changed():
    features = dict(FEATURES)
    one = made(features)
    features["late"] = bars.open
    assert "late" not in one.features
    with pytest.raises(TypeError):
        one.features["late"] = bars.open  # type: ignore[index]


def test_a_pickle_holds_the_text_and_nothing_else():
    data = pickle.dumps(fs_v1)
    assert fs_v1.text.encode() in data
    again = pickle.loads(data)  # noqa: S301  # our own bytes
    assert again == fs_v1
    assert all(again.features[name] is e for name, e in fs_v1.features.items())
    rebuild, arguments = fs_v1.__reduce__()
    assert (rebuild, arguments) == (FeatureSet.parse, (fs_v1.text,))


def test_the_difference_shows_the_lines_that_changed():
    changed = made(FEATURES | {"vol": ret.std(30)})
    assert made().difference(made().text) == ""
    assert changed.difference(made().text).splitlines() == [
        "--- v1 as registered",
        "+++ v1 as defined",
        "@@ -2,3 +2,3 @@",
        " feature ret = bars.close / bars.close.lag(1) - 1",
        "-feature vol = ret.std(20, ddof=0)",
        "+feature vol = ret.std(30, ddof=1)",
        ' feature mood = events.window("1h").sentiment.mean()',
    ]


def test_selecting_checks_the_names():
    assert made().select(["mood", "ret"]) == ("mood", "ret")
    with pytest.raises(NotFound, match="v1 has no feature 'mod'; did you mean 'mood'"):
        made().select(["mod"])


def test_a_set_shows_what_it_is():
    assert repr(fs_v1) == f"<FeatureSet fs_v1: 8 features, 21 bars back, {fs_v1.fingerprint[:12]}>"
