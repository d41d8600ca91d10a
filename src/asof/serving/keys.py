"""API keys: one file of their hashes, which commands write and servers read.

1. A key is `asof_<prefix>_<secret>`, shown once, when it is made. The file has the prefix, by which people and logs name the key, and
   SHA-256 of the whole; a secret of 256 random bits needs no slower hash.
2. Who writes makes `<file>.new` first, which one can do at a time, and puts it in the place of the file when it is whole.
3. A server looks at most every `LOOK_SECONDS` whether the file is another, so that keys come and go without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from asof.config import ConfigError
from asof.errors import NotFound, Unauthenticated, did_you_mean
from asof.serving.principal import Principal, scope

FILE = "asof-keys.json"
SCHEMA = "asof-keys.v1"
LOOK_SECONDS = 0.25
WAIT_SECONDS = 5.0
"""For another command that writes the file."""
MOST_NAME = 100

TOKEN = re.compile(r"asof_([0-9a-f]{8})_[0-9a-f]{64}")
WRONG = "this key is not known here: it is mistyped, cut short, or was made for another service (asof keys list shows the prefixes)"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """What is kept of a key."""

    prefix: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None

    @property
    def principal(self) -> Principal:
        """Who brings it."""
        return Principal(self.name, frozenset(self.scopes), self.prefix)

    def state(self, now: datetime) -> str:
        """`revoked`, `expired` or `valid`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"

    def record(self) -> dict[str, object]:
        """As the file has it."""
        times = {name: None if when is None else when.isoformat() for name, when in self._times()}
        return {"prefix": self.prefix, "name": self.name, "scopes": list(self.scopes), "sha256": self.sha256, **times}

    def _times(self) -> list[tuple[str, datetime | None]]:
        return [("created", self.created), ("expires", self.expires), ("revoked", self.revoked)]

    @classmethod
    def of(cls, record: Mapping[str, object]) -> Key:
        """From what the file has. Raises `KeyError`, `TypeError`, `ValueError` or an `AsofError` for what is none."""
        prefix, name, digest, scopes = (record[field] for field in ("prefix", "name", "sha256", "scopes"))
        if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) and isinstance(scopes, list)):
            raise ValueError("sha256 is 64 hexadecimal digits, and scopes is a list")
        times = [_time(record[field]) for field in ("created", "expires", "revoked")]
        if times[0] is None:
            raise ValueError("created is a time")
        return cls(str(prefix), str(name), tuple(scope(str(word)) for word in scopes), digest, times[0], *times[1:])


class KeyFile:
    """The keys of one file. It is read by any threads; commands change it."""

    def __init__(self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = -LOOK_SECONDS
        self._seen: object = None
        self._keys: Mapping[str, Key] = {}
        self._broken: ConfigError | None = None

    def keys(self) -> Mapping[str, Key]:
        """The keys by prefix; none where there is no file. Raises `ConfigError` where the file is there and cannot be used."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            with self._lock:
                self._look()
        if self._broken is not None:
            raise self._broken
        return self._keys

    def _look(self) -> None:
        """Read the file where it is another than was read."""
        try:
            there = self.path.stat()
            seen: object = (there.st_ino, there.st_size, there.st_mtime_ns, there.st_mode)
        except OSError as error:
            seen = None if isinstance(error, FileNotFoundError) else error.errno
        if seen != self._seen:
            try:
                self._keys, self._broken = self._read(), None
            except ConfigError as error:
                self._keys, self._broken = {}, error
                log.error("the keys cannot be read, and none is let in", extra={"error": str(error)})  # noqa: TRY400  # it says all
        self._seen, self._looked = seen, time.monotonic()

    def _read(self) -> dict[str, Key]:
        """The keys as the file has them now."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                    raise ConfigError(f"{self.path} can be written by everybody of this machine: chmod 600 {self.path}")
                document = json.load(file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError(f"the keys in {self.path} cannot be read: {error.strerror or error}") from None
        except ValueError:
            raise ConfigError(f"{self.path} is no JSON, as asof keys writes it: put back a copy, or remove it and make new keys") from None
        try:
            if document["schema"] != SCHEMA:
                raise ConfigError(f"{self.path} is of the schema {document['schema']!r}, not {SCHEMA}: is asof older than it?")
            return {key.prefix: key for key in map(Key.of, document["keys"])}
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever is wrong in it, it is no file of keys
            raise ConfigError(
                f"{self.path} holds what is no key: {error!r:.200}; put back a copy, or remove it and make new keys"
            ) from None

    def authenticate(self, token: str) -> Principal:
        """Who brings a key. Raises `Unauthenticated` for one that is wrong, expired or revoked, and `ConfigError` as `keys` does.

        What is wrong takes the time of what is right: a hash is made and compared whether there is a key of that prefix or not. That a key
        is expired or revoked is said only to those who have all of it.
        """
        found = TOKEN.fullmatch(token)
        key = self.keys().get(found[1]) if found else None
        digest = hashlib.sha256(token.encode(errors="replace")).hexdigest()
        right = hmac.compare_digest(digest, key.sha256 if key else "0" * 64)
        if not right or key is None:
            raise Unauthenticated(WRONG)
        if (state := key.state(self._clock())) != "valid":
            when = f"{key.revoked or key.expires:%Y-%m-%d %H:%M} UTC"
            raise Unauthenticated(f"the key {key.prefix} is {state} since {when}: ask for another (asof keys create)")
        return key.principal

    def create(self, name: str, scopes: list[str], expires: datetime | None) -> tuple[str, Key]:
        """A new key: its text, which nobody sees again, and what is kept. Raises `ConfigError` where the file cannot be written."""
        with self._changing() as keys:
            prefix = next(prefix for prefix in iter(lambda: secrets.token_hex(4), "") if prefix not in keys)
            token = f"asof_{prefix}_{secrets.token_hex(32)}"
            digest = hashlib.sha256(token.encode()).hexdigest()
            key = keys[prefix] = Key(prefix, name, tuple(dict.fromkeys(map(scope, scopes))), digest, self._clock(), expires)
        return token, key

    def revoke(self, prefix: str) -> Key:
        """Have a key let nobody in from now on; once is enough. Raises `NotFound` for a prefix that no key has."""
        with self._changing() as keys:
            if prefix not in keys:
                raise NotFound(f"there is no key {prefix!r} in {self.path}{did_you_mean(prefix, list(keys))}; asof keys list shows them")
            if keys[prefix].revoked is None:
                keys[prefix] = replace(keys[prefix], revoked=self._clock())
            return keys[prefix]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys, which are written when the block is done. One does this at a time: `<file>.new` is there once."""
        new = self.path.with_name(f"{self.path.name}.new")
        descriptor = self._begin(new)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                keys = self._read()
                yield keys
                json.dump({"schema": SCHEMA, "keys": [key.record() for key in keys.values()]}, file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise ConfigError(f"the keys in {self.path} cannot be written: {error.strerror or error}") from None
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        self._looked = -LOOK_SECONDS

    def _begin(self, new: Path) -> int:
        """`<file>.new`, for the one who has made it."""
        last = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            except FileExistsError:
                if time.monotonic() > last:
                    mend = "another asof keys writes it, or was ended in the middle: remove it if none runs"
                    raise ConfigError(f"{new} is there: {mend}") from None
                time.sleep(0.02)
            except OSError as error:
                raise ConfigError(f"the keys in {self.path} cannot be written: {error.strerror or error}") from None


def _time(value: object) -> datetime | None:
    if value is None:
        return None
    when = datetime.fromisoformat(str(value))
    if when.tzinfo is None:
        raise ValueError(f"{value} has no zone")
    return when
