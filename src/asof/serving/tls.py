"""The certificate that a service shows: files, tried before it begins."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from asof.config import ConfigError, Settings


@dataclass(frozen=True)
class Tls:
    """The files of a certificate, with those between it and its authority behind it, and of its key."""

    certificate: Path
    key: Path

    @classmethod
    def of(cls, settings: Settings) -> Tls | None:
        """Those of some settings; None where there are none. Raises `ConfigError` for files that cannot be used."""
        certificate, key = settings.tls_certificate, settings.tls_key
        if certificate is None and key is None:
            return None
        if certificate is None or key is None:
            missing = "ASOF_TLS_KEY" if key is None else "ASOF_TLS_CERTIFICATE"
            raise ConfigError(f"TLS needs both a certificate and its key: set {missing}, too")
        found = cls(certificate, key)
        found.context()
        return found

    def context(self) -> ssl.SSLContext:
        """For a server: TLS 1.2 or newer. Raises `ConfigError`; a key that asks for a pass phrase is one of those that cannot be used."""

        def refuse() -> str:
            raise ConfigError(f"the key in {self.key} asks for a pass phrase, which nobody is there to give: store it without one")

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            for file in (self.certificate, self.key):
                file.open("rb").close()
            context.load_cert_chain(self.certificate, self.key, refuse)
        except ssl.SSLError as error:
            why = (
                "the key is not that of the certificate"
                if error.reason == "KEY_VALUES_MISMATCH"
                else f"they are no PEM files ({error.reason})"
            )
            raise ConfigError(f"TLS cannot use {self.certificate} and {self.key}: {why}") from None
        except OSError as error:
            raise ConfigError(f"TLS cannot read {error.filename}: {error.strerror or error}") from None
        return context
