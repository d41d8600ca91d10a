"""An OIDC issuer on the loopback, which signs real tokens and can be made to fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "asof"


def made(algorithm: str) -> PrivateKeyTypes:
    """A new key for an algorithm."""
    if algorithm.startswith("ES"):
        return ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[algorithm])
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else rsa.generate_private_key(65537, 2048)


class TestIssuer:
    """Its keys by `kid`; what it publishes; and how often it was asked."""

    __test__ = False

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, tuple[str, PrivateKeyTypes]] = {"first": ("RS256", made("RS256"))}
        self.asked: list[str] = []
        self.down = False
        self.discovery: dict[str, Any] = {}
        self.more_keys: list[object] = []

    def claims(self, **changed: object) -> dict[str, object]:
        """Claims of a good token; None leaves one out."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "desk", "iat": now, "exp": now + 300, "scope": "openid read:fs_v1"} | changed
        return {name: value for name, value in good.items() if value is not None}

    def token(self, kid: str = "first", headers: dict[str, object] | None = None, **changed: object) -> str:
        """A token signed by one of the keys."""
        algorithm, key = self.keys[kid]
        return jwt.encode(self.claims(**changed), key, algorithm, {"kid": kid} | (headers or {}))  # type: ignore[arg-type]

    def document(self, path: str) -> object:
        """What is at a path."""
        if path.endswith("openid-configuration"):
            return {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"} | self.discovery
        return {"keys": [public(kid, *key) for kid, key in self.keys.items()] + self.more_keys}


def public(kid: str, algorithm: str, key: Any) -> dict[str, object]:
    """The public half of a key, as a JWKS has it."""
    kind: Any = ECAlgorithm if algorithm.startswith("ES") else OKPAlgorithm if algorithm == "EdDSA" else RSAAlgorithm
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


@contextmanager
def issuing() -> Iterator[TestIssuer]:
    """An issuer for the block."""
    issuer = TestIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # so the standard library calls it
            issuer.asked.append(self.path)
            body = b"" if issuer.down else json.dumps(issuer.document(self.path)).encode()
            self.send_response(503 if issuer.down else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
