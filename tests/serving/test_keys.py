"""Keys as a server reads them: found, refused, and followed as they change."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asof.config import ConfigError
from asof.errors import AccessError, Unauthenticated
from asof.serving.keys import LOOK_SECONDS, WRONG, KeyFile
from asof.serving.principal import Principal, scopes_among


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_a_key_tells_who_brings_it(keys):
    token, key = keys.create("desk", ["read:fs_v1", "write"], None)
    assert keys.authenticate(token) == Principal("desk", frozenset({"read:fs_v1", "write"}), key.prefix)


def test_what_is_almost_a_key_is_none(keys):
    token, key = keys.create("desk", ["admin"], None)
    other, _ = keys.create("other", ["admin"], None)
    wrong = [token[:-1], token + "0", token.upper(), f" {token}", f"{token}\n", token.replace(key.prefix, "00000000")]
    wrong += [token[:14] + other[14:], "asof_" + "a" * 100_000, "", "ключ", "\ud800", key.sha256, f"asof_{key.prefix}_{key.sha256}"]
    for text in wrong:
        with pytest.raises(Unauthenticated) as error:
            keys.authenticate(text)
        assert str(error.value) == WRONG, "the same for all"


def test_an_expired_key_and_a_revoked_one_say_so_to_those_who_have_them(tmp_path):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    keys = KeyFile(tmp_path / "keys.json", lambda: now)
    token, _ = keys.create("a", ["admin"], now + timedelta(days=1))
    assert keys.authenticate(token).name == "a"
    now += timedelta(days=1)
    with pytest.raises(Unauthenticated, match="is expired since 2026-01-02 00:00 UTC"):
        keys.authenticate(token)
    with pytest.raises(Unauthenticated) as error:
        keys.authenticate(token[:-1] + ("0" if token[-1] != "0" else "1"))
    assert str(error.value) == WRONG
    token, key = keys.create("b", ["admin"], None)
    keys.revoke(key.prefix)
    with pytest.raises(Unauthenticated, match="is revoked since"):
        keys.authenticate(token)


def test_keys_that_others_make_and_revoke_are_seen_within_a_second(keys):
    assert keys.keys() == {}
    token, key = KeyFile(keys.path).create("a", ["admin"], None)
    time.sleep(LOOK_SECONDS)
    assert keys.authenticate(token).name == "a"
    KeyFile(keys.path).revoke(key.prefix)
    time.sleep(LOOK_SECONDS)
    with pytest.raises(Unauthenticated):
        keys.authenticate(token)


def test_a_file_that_breaks_lets_nobody_in_until_it_is_whole_again(keys):
    token, _ = keys.create("a", ["admin"], None)
    whole = keys.path.read_bytes()
    keys.authenticate(token)
    keys.path.write_bytes(whole[:50])
    time.sleep(LOOK_SECONDS)
    with pytest.raises(ConfigError, match="is no JSON"):
        keys.authenticate(token)
    keys.path.write_bytes(whole)
    time.sleep(LOOK_SECONDS)
    assert keys.authenticate(token).name == "a"
    keys.path.unlink()
    time.sleep(LOOK_SECONDS)
    with pytest.raises(Unauthenticated):
        keys.authenticate(token)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_a_file_that_everybody_can_write_is_refused_with_the_mend(keys):
    token, _ = keys.create("a", ["admin"], None)
    keys.path.chmod(0o666)
    time.sleep(LOOK_SECONDS)
    with pytest.raises(ConfigError, match="chmod 600"):
        keys.authenticate(token)


def test_scopes_open_what_they_name_and_nothing_else():
    one, everything = Principal("a", frozenset({"read:fs_v1"})), Principal("b", frozenset({"read:*"}))
    assert one.may_read("fs_v1")
    assert not any(map(one.may_read, ("fs_v10", "fs_v", "FS_V1", "*", "", "fs_v1 ", "fs_v1\x00")))
    assert everything.may_read("fs_v2")
    assert [p.may(need) for p in (one, everything) for need in ("read", "write", "admin")] == [True, False, False] * 2
    writer, admin = Principal("c", frozenset({"write"})), Principal("d", frozenset({"admin"}))
    assert [writer.may(need) for need in ("read", "write", "admin")] == [False, True, False]
    assert all(admin.may(need) for need in ("read", "write", "admin"))
    assert admin.may_read("fs_v1")
    assert not writer.may_read("fs_v1")
    with pytest.raises(AccessError, match="it needs the scope read:fs_v2"):
        one.read("fs_v2")


def test_words_of_others_are_no_scopes():
    assert scopes_among(["openid", "read:fs_v1", "read:", "READ:*", "write:all", "read:*\n"]) == {"read:fs_v1"}
