from __future__ import annotations

import json
import logging
import warnings
from datetime import datetime, timedelta

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from asof.config import ConfigError, Settings, load_settings
from asof.telemetry.logs import FIRST, configure, hide_secrets


@pytest.fixture(autouse=True)
def _as_it_was():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = before, level
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(capsys) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_json_with_the_time_in_utc_and_the_fields(capsys):
    configure("info", "json")
    logging.getLogger("asof.live").info("cycle ended in %s", "time", extra={"vectors": 3, "timeframe": "1m"})
    (line,) = lines(capsys)
    assert tuple(line)[:4] == FIRST
    assert line | {"time": ""} == {
        "time": "", "level": "info", "logger": "asof.live", "event": "cycle ended in time", "vectors": 3, "timeframe": "1m"
    }  # fmt: skip
    assert datetime.fromisoformat(str(line["time"])).utcoffset() == timedelta(0)


def test_loggers_of_structlog_say_the_same(capsys):
    configure("info", "json")
    structlog.get_logger("asof.live").info("cycle", vectors=3)
    (line,) = lines(capsys)
    assert line | {"time": ""} == {"time": "", "level": "info", "logger": "asof.live", "event": "cycle", "vectors": 3}


def test_what_is_below_the_level_is_not_said(capsys):
    configure("warning", "json")
    logging.getLogger("a").info("no")
    structlog.get_logger("b").info("no")
    logging.getLogger("c").warning("yes")
    assert [line["event"] for line in lines(capsys)] == ["yes"]


def test_an_error_keeps_its_traceback_in_one_line(capsys):
    configure("info", "json")
    try:
        raise ValueError("postgresql://market:hunter2@db/market")
    except ValueError:
        logging.getLogger("asof").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: postgresql://market:***@db/market" in str(line["exception"])


def test_warnings_are_lines_as_well(capsys):
    configure("info", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    assert "an old name" in str(lines(capsys)[0]["event"])


def test_text_is_for_people(capsys):
    configure("info", "text")
    logging.getLogger("asof.live").info("cycle", extra={"vectors": 3, "password": "hunter2"})
    said = capsys.readouterr().err
    assert "cycle" in said
    assert "vectors=3" in said
    assert "hunter2" not in said


def test_where_nobody_looks_auto_is_json(capsys):
    configure("info", "auto")
    logging.getLogger("asof").info("cycle")
    assert lines(capsys)[0]["event"] == "cycle"


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=6, max_size=20).map("pw:{}".format)


@given(PASSWORDS)
def test_a_password_in_a_url_is_hidden_however_it_is_logged(password):
    url = f"postgresql://market:{password}@db:5432/market"
    said = hide_secrets(
        None, "", {"event": f"cannot reach {url}, trying again", "url": url, "deep": {"list": [url, (url,)]}, "error": ValueError(url)}
    )
    assert password not in repr(said)
    assert said["url"] == "postgresql://market:***@db:5432/market"


@pytest.mark.parametrize(
    "text",
    [
        "host=db password=hunter2 dbname=market",
        "host=db password='hunter2 too' dbname=market",
        '{"sasl.password": "hunter2"}',
        "Authorization: Bearer hunter2",
        "authorization=Basic hunter2==",
        "?api_key=hunter2&x=1",
        "POSTGRES_PASSWORD=hunter2",
    ],
)
def test_a_secret_behind_its_name_is_hidden(text):
    assert "hunter2" not in str(hide_secrets(None, "", {"event": text}))


@pytest.mark.parametrize(
    "name", ["password", "POSTGRES_PASSWORD", "sasl.password", "api_key", "apikey", "Authorization", "set_cookie", "access_token"]
)
def test_a_field_with_the_name_of_a_secret_is_hidden(name):
    assert hide_secrets(None, "", {name: "hunter2", "headers": {name: ["hunter2"]}}) == {name: "***", "headers": {name: "***"}}


def test_the_settings_are_logged_without_the_password():
    settings = Settings(postgres_password="hunter2")
    said = hide_secrets(None, "", {"event": "begun", "settings": settings, "all": settings.model_dump(), "store": settings.store_url})
    assert "hunter2" not in repr(said)


def test_a_key_or_token_is_hidden_wherever_it_stands():
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJkZXNrIn0.c2ln-bmF0_dXJl"
    key = "asof_0123abcd_" + "0f" * 32
    said = hide_secrets(None, "", {"event": f"GET /v1/{key}?x={key[:40]}", "path": f"/{token}", "all": [f"'{token}'", key]})
    assert said == {"event": "GET /v1/asof_0123abcd_***?x=asof_0123abcd_***", "path": "/***", "all": ["'***'", "asof_0123abcd_***"]}


@pytest.mark.parametrize("text", ["http://db:8000/health", "postgresql://market@db:5432/market", "12:30:00 a@b", "three tokens were read"])
def test_what_holds_no_secret_is_left_as_it_is(text):
    assert hide_secrets(None, "", {"event": text})["event"] == text


def test_the_level_may_be_written_in_capitals(monkeypatch):
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    assert load_settings().log_level == "warning"
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigError, match="LOG_LEVEL"):
        load_settings()
