"""`asof keys`: made once, shown once, listed without themselves, revoked."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asof.serving.keys import KeyFile
from tests.cli.conftest import Command


def test_a_key_is_shown_once_and_kept_as_a_hash(asof: Command, folder: Path) -> None:
    made = asof("keys", "create", "research", "--scope", "read:fs_v1", "--scope", "read:fs_v1", "--json").json
    token = str(made["key"])
    assert token.startswith(f"asof_{made['prefix']}_")
    assert (made["scopes"], made["state"]) == (["read:fs_v1"], "valid")
    kept = (folder / "asof-keys.json").read_text()
    assert token.rpartition("_")[2] not in kept
    listed = asof("keys", "list", "--json").json
    assert listed["keys"] == [{name: value for name, value in made.items() if name != "key"}]
    assert asof("keys", "list").text.splitlines()[1].split()[:3] == [made["prefix"], "research", "read:fs_v1"]


def test_a_key_alone_goes_to_standard_output(asof: Command) -> None:
    done = asof("keys", "create", "[bold]desk[/]", "-s", "read:*", "--expires", "never")
    assert done.text.startswith("asof_")
    assert len(done.text.splitlines()) == 1
    assert "[bold]desk[/] may read:* for ever" in done.said
    assert KeyFile(Path("asof-keys.json")).authenticate(done.text.strip()).may_read("fs_v1")


def test_a_key_expires_when_it_was_said_to(asof: Command) -> None:
    made = asof("keys", "create", "a", "-s", "write", "--expires", "12h", "--json").json
    left = datetime.fromisoformat(str(made["expires"])) - datetime.now(UTC)
    assert timedelta(hours=11.9) < left <= timedelta(hours=12)


def test_a_revoked_key_stays_in_the_list_and_to_revoke_it_again_is_no_error(asof: Command) -> None:
    prefix = asof("keys", "create", "a", "-s", "admin", "--json").json["prefix"]
    first = asof("keys", "revoke", prefix, "--json").json
    assert first["state"] == "revoked"
    assert asof("keys", "revoke", prefix, "--json").json == first
    assert "of a is revoked" in asof("keys", "revoke", prefix).text
    assert asof("keys", "list").text.split()[-1] == "revoked"


def test_a_key_is_revoked_by_itself_or_by_how_it_begins(asof: Command) -> None:
    for cut in (None, 13):
        made = asof("keys", "create", "a", "-s", "admin", "--json").json
        assert asof("keys", "revoke", str(made["key"])[:cut], "--json").json["prefix"] == made["prefix"]


def test_without_keys_the_list_says_what_makes_one(asof: Command) -> None:
    assert asof("keys", "list").text == "no keys; asof keys create makes one\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_the_file_is_for_its_owner_alone_and_stays_where_the_setting_says(asof: Command, folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("ASOF_KEYS_FILE", str(folder / "elsewhere.json"))
    for name in "ab":
        assert asof("keys", "create", name, "-s", "admin").code == 0
        assert stat.S_IMODE((folder / "elsewhere.json").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["elsewhere.json"]


def test_keys_made_at_the_same_time_are_all_there(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: KeyFile(Path("keys.json")).create(f"k{n}", ["read:*"], None), range(24)))
    assert sorted(KeyFile(Path("keys.json")).keys()) == sorted(key.prefix for _, key in made)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("keys create a", 2, "Missing option '--scope'"),
        ("keys create a --scope reed:fs_v1", 3, "scope 'reed:fs_v1' is not one of read:<feature set>, read:*, write, admin"),
        ("keys create a --scope read:", 3, "scope 'read:' is not one of"),
        ("keys create a --scope read:fs_v1,read:fs_v2", 3, "is not one of"),
        ("keys create a --scope amin", 3, "did you mean 'admin'?"),
        ("keys create a --scope admin --expires soon", 3, "--expires: duration 'soon' is not one of <n>s, <n>m, <n>h, <n>d"),
        ("keys create a --scope admin --expires 9999d", 3, "more than ten years"),
        ("keys revoke 12345678", 6, "there is no key '12345678' in asof-keys.json; asof keys list shows them"),
        ("keys lst", 2, "No such command 'lst'. Did you mean 'list'?"),
    ],
)
def test_what_cannot_be_done_says_why(asof: Command, folder: Path, line: str, code: int, message: str) -> None:
    done = asof(*line.split())
    assert (done.code, done.output) == (code, b"")
    assert message in done.said
    assert not list(folder.iterdir()), "nothing is left behind"


def test_a_name_that_cannot_be_seen_is_refused(asof: Command) -> None:
    for name in ("", "a\nb", "x" * 101):
        assert asof("keys", "create", name, "-s", "admin").code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "holds what is no key"),
        (json.dumps({"schema": "asof-keys.v9", "keys": []}), "is of the schema 'asof-keys.v9'"),
        (json.dumps({"schema": "asof-keys.v1", "keys": [{"prefix": "a"}]}), "holds what is no key"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_as_it_is(asof: Command, folder: Path, content: str, message: str) -> None:
    (folder / "asof-keys.json").write_text(content)
    for line in ("keys list", "keys create a -s admin", "keys revoke a"):
        done = asof(*line.split())
        assert done.code == 2
        assert message in done.said
    assert [path.name for path in folder.iterdir()] == ["asof-keys.json"]
    assert (folder / "asof-keys.json").read_text() == content


def test_a_file_that_another_command_holds_is_waited_for_and_then_named(asof: Command, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("asof.serving.keys.WAIT_SECONDS", 0.05)
    (folder / "asof-keys.json.new").touch()
    done = asof("keys", "create", "a", "-s", "admin")
    assert done.code == 2
    assert "asof-keys.json.new is there" in done.said
    (folder / "asof-keys.json.new").unlink()
    monkeypatch.setenv("ASOF_KEYS_FILE", "no/such/keys.json")
    assert "cannot be written: No such file or directory" in asof("keys", "create", "a", "-s", "admin").said
