"""Certificates by setting: those that work, and what is said of those that do not."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from asof.config import ConfigError, load_settings
from asof.serving.tls import Tls
from tests.servers.certificates import certificate


def test_without_settings_there_is_no_tls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Tls.of(load_settings()) is None


def test_a_client_that_trusts_the_certificate_is_spoken_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = certificate(tmp_path)
    monkeypatch.setenv("ASOF_TLS_CERTIFICATE", str(made.certificate))
    monkeypatch.setenv("ASOF_TLS_KEY", str(made.key))
    tls = Tls.of(load_settings())
    assert tls == made
    trusting = ssl.create_default_context(cafile=str(made.certificate))
    ours, theirs = socket.socketpair()
    served: list[str | None] = []

    def serve() -> None:
        with tls.context().wrap_socket(ours, server_side=True) as connection:
            served.append(connection.version())

    thread = threading.Thread(target=serve)
    thread.start()
    with trusting.wrap_socket(theirs, server_hostname="localhost"):
        thread.join()
    assert served == ["TLSv1.3"]


def test_files_that_cannot_be_used_are_named_with_the_reason(tmp_path):
    made, other, closed = certificate(tmp_path), certificate(tmp_path, "other"), certificate(tmp_path, "closed", b"phrase")
    (tmp_path / "garbage").write_text("garbage")
    for certificate_file, key, message in (
        (made.certificate, None, "set ASOF_TLS_KEY, too"),
        (None, made.key, "set ASOF_TLS_CERTIFICATE, too"),
        (tmp_path / "missing", made.key, "TLS cannot read .*missing: No such file"),
        (made.certificate, tmp_path / "missing", "TLS cannot read .*missing: No such file"),
        (made.certificate, other.key, "the key is not that of the certificate"),
        (made.certificate, closed.key, "asks for a pass phrase"),
        (tmp_path / "garbage", made.key, "they are no PEM files"),
        (made.key, made.key, "they are no PEM files"),
    ):
        given = {"tls_certificate": certificate_file, "tls_key": key}
        with pytest.raises(ConfigError, match=message):
            Tls.of(load_settings(**{name: str(file) for name, file in given.items() if file is not None}))
