"""Tokens of an issuer that signs real ones: those that are let in, and every kind that is not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from itertools import count

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from asof.config import ConfigError
from asof.errors import IssuerError, Unauthenticated
from asof.serving import oidc
from asof.serving.oidc import Issuer, Tokens, checked
from asof.serving.principal import Principal
from tests.servers.issuer import AUDIENCE, TestIssuer, issuing, made


@pytest.fixture(scope="module")
def at_its_address() -> Iterator[TestIssuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def issuer(at_its_address: TestIssuer, monkeypatch: pytest.MonkeyPatch) -> TestIssuer:
    for name, value in {"down": False, "discovery": {}, "asked": [], "more_keys": [], "keys": dict(at_its_address.keys)}.items():
        monkeypatch.setattr(at_its_address, name, value)
    return at_its_address


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def tokens(issuer: TestIssuer, now: list[float]) -> Tokens:
    return Tokens(Issuer(issuer.url, clock=lambda: now[0]), AUDIENCE)


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_a_token_tells_who_brings_it_and_its_scopes(tokens, issuer):
    assert tokens.authenticate(issuer.token()) == Principal("desk", frozenset({"read:fs_v1"}))
    assert tokens.authenticate(issuer.token(scope=None, scp=["read:*", 7])).scopes == {"read:*"}
    assert tokens.authenticate(issuer.token(scope=None)).scopes == set()
    assert tokens.authenticate(issuer.token(scope={"read:*": 1})).scopes == set()
    assert tokens.authenticate(issuer.token(aud=["other", AUDIENCE])).name == "desk"
    assert len(issuer.asked) == 2, "its keys are asked for once: the discovery document, and what it points to"


@pytest.mark.parametrize("algorithm", ["PS512", "ES256", "ES384", "ES512", "EdDSA"])
def test_every_kind_of_key_that_is_allowed_works(tokens, issuer, algorithm):
    issuer.keys["other"] = (algorithm, made(algorithm))
    assert tokens.authenticate(issuer.token("other")).name == "desk"


WRONG_CLAIMS = {
    "another issuer": ({"iss": "https://elsewhere"}, "of another issuer"),
    "an issuer that begins alike": ({"iss": "http://127.0.0.1"}, "of another issuer"),
    "another audience": ({"aud": "other"}, "for another audience"),
    "an audience that holds ours": ({"aud": "asof2"}, "for another audience"),
    "expired": ({"exp": int(time.time()) - 31}, "expired"),
    "not yet": ({"nbf": int(time.time()) + 3600}, "not valid yet"),
    "made in the future": ({"iat": int(time.time()) + 3600}, "not valid yet"),
    "without an end": ({"exp": None}, "lacks one of the claims"),
    "without issuer": ({"iss": None}, "lacks one of the claims"),
    "without audience": ({"aud": None}, "lacks one of the claims"),
    "without subject": ({"sub": None}, "lacks one of the claims"),
    "an end that is no number": ({"exp": "soon"}, "malformed"),
    "a subject that is no text": ({"sub": 7}, "malformed"),
}


@pytest.mark.parametrize("why", WRONG_CLAIMS)
def test_a_token_with_wrong_claims_is_refused_with_the_reason(tokens, issuer, why):
    claims, message = WRONG_CLAIMS[why]
    with pytest.raises(Unauthenticated, match=message):
        tokens.authenticate(issuer.token(**claims))


def test_clocks_may_differ_a_little(tokens, issuer):
    assert tokens.authenticate(issuer.token(exp=int(time.time()) - 10)).name == "desk"
    assert tokens.authenticate(issuer.token(nbf=int(time.time()) + 10)).name == "desk"


def test_a_token_without_a_signature_is_refused(tokens, issuer):
    for algorithm in ("none", "None", "NONE", ""):
        for end in ("", "AAAA"):
            with pytest.raises(Unauthenticated, match=r"has to be signed with one of|malformed"):
                tokens.authenticate(f"{encoded({'alg': algorithm, 'kid': 'first'})}.{encoded(issuer.claims())}.{end}")


def test_a_public_key_is_no_shared_secret(tokens, issuer):
    public = issuer.keys["first"][1].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'first'})}.{encoded(issuer.claims())}"
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    with pytest.raises(Unauthenticated, match="has to be signed with one of"):
        tokens.authenticate(f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")


def test_a_shared_secret_among_the_keys_is_left_alone(tokens, issuer):
    secret = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")
    issuer.more_keys += [{"kty": "oct", "k": secret, "kid": "shared", "alg": "HS256"}, {"kty": "RSA", "kid": "no"}, "nothing", None]
    token = jwt.encode(issuer.claims(), "s" * 32, "HS256", {"kid": "shared"})
    with pytest.raises(Unauthenticated, match="has to be signed with one of"):
        tokens.authenticate(token)
    assert tokens.authenticate(issuer.token()).name == "desk"


def test_a_key_signs_with_what_it_is_for_and_no_other(tokens, issuer):
    issuer.keys["curve"] = ("ES256", made("ES256"))
    for kid, algorithm in (("first", "ES256"), ("curve", "RS256")):
        head, body, end = issuer.token(kid).split(".")
        header = json.loads(base64.urlsafe_b64decode(head + "==")) | {"alg": algorithm}
        with pytest.raises(Unauthenticated, match=f"no such key for {algorithm}"):
            tokens.authenticate(f"{encoded(header)}.{body}.{end}")


def test_a_token_of_someone_elses_key_is_refused(tokens, issuer):
    stranger = jwt.encode(issuer.claims(), made("RS256"), "RS256", {"kid": "first"})
    with pytest.raises(Unauthenticated, match="its signature is not of its issuer's keys"):
        tokens.authenticate(stranger)
    head, _, end = issuer.token().split(".")
    with pytest.raises(Unauthenticated, match="signature"):
        tokens.authenticate(f"{head}.{encoded(issuer.claims(scope='admin'))}.{end}")


def test_what_is_no_token_is_refused(tokens, issuer):
    good = issuer.token()
    wrong = ["", ".", "..", "a.b.c", good[:-5], good[: len(good) // 2], good + ".x", f"{good}\n\n", "é.é.é", "\ud800.a.b", "a" * 10_000]
    wrong += [
        f"{encoded(part)}.{encoded(part)}.AAAA" for part in ([], 7, None, {}, {"alg": 7}, {"alg": ["RS256"]}, {"alg": "RS256", "kid": 7})
    ]
    wrong += [issuer.token(headers={"crit": ["x"], "x": 1})]
    for text in wrong:
        with pytest.raises(Unauthenticated):
            tokens.authenticate(text)


def test_keys_that_come_and_go_are_followed(tokens, issuer, now):
    old = issuer.token()
    tokens.authenticate(old)
    issuer.keys["second"] = ("ES256", made("ES256"))
    with pytest.raises(Unauthenticated, match="no such key"):
        tokens.authenticate(issuer.token("second"))
    now[0] += oidc.PAUSE_SECONDS
    assert tokens.authenticate(issuer.token("second")).name == "desk"
    del issuer.keys["first"]
    now[0] += oidc.FRESH_SECONDS
    with pytest.raises(Unauthenticated, match="no such key"):
        tokens.authenticate(old)


def test_a_flood_of_unknown_keys_asks_the_issuer_once(tokens, issuer):
    tokens.authenticate(issuer.token())
    asked = len(issuer.asked)
    for n in range(50):
        with pytest.raises(Unauthenticated):
            tokens.authenticate(issuer.token(headers={"kid": f"unknown{n}"}))
    assert len(issuer.asked) == asked


def test_an_issuer_that_is_away_lets_nobody_in(tokens, issuer, now):
    issuer.down = True
    for _ in range(2):
        with pytest.raises(IssuerError, match="cannot be asked for its keys now"):
            tokens.authenticate(issuer.token())
    assert len(issuer.asked) == 1
    issuer.down = False
    now[0] += oidc.PAUSE_SECONDS
    assert tokens.authenticate(issuer.token()).name == "desk"


def test_its_keys_hold_for_an_hour_while_it_is_away(tokens, issuer, now):
    tokens.authenticate(issuer.token())
    issuer.down = True
    now[0] += oidc.FRESH_SECONDS + 1
    assert tokens.authenticate(issuer.token(sub="a")).name == "a"
    issuer.keys["second"] = ("ES256", made("ES256"))
    with pytest.raises(IssuerError):
        tokens.authenticate(issuer.token("second"))
    now[0] += oidc.STALE_SECONDS
    with pytest.raises(IssuerError):
        tokens.authenticate(issuer.token(sub="b"))


def test_a_port_where_nobody_answers_is_an_issuer_that_is_away():
    with pytest.raises(IssuerError, match="cannot be asked"):
        Tokens(Issuer("http://127.0.0.1:9"), AUDIENCE).authenticate(jwt.encode({}, made("RS256"), "RS256", {"kid": "a"}))


def test_a_document_without_end_is_left(issuer, monkeypatch):
    monkeypatch.setattr(oidc, "MOST_DOCUMENT", 100)
    issuer.discovery = {"more": "x" * 100}
    with pytest.raises(ValueError, match="is larger than 100 bytes"):
        oidc.fetch(f"{issuer.url}{oidc.DISCOVERY}")
    monkeypatch.undo()
    monkeypatch.setattr(oidc.time, "monotonic", count(0, 10).__next__)
    with pytest.raises(TimeoutError, match="takes longer than 5 seconds"):
        oidc.fetch(f"{issuer.url}{oidc.DISCOVERY}")


@pytest.mark.parametrize(
    "discovery",
    [{"issuer": "https://elsewhere"}, {"jwks_uri": None}, {"jwks_uri": "http://example.com/jwks"}, {"jwks_uri": "file:///etc/passwd"}],
)
def test_a_discovery_document_that_points_elsewhere_is_not_followed(tokens, issuer, discovery):
    issuer.discovery = discovery
    with pytest.raises(IssuerError):
        tokens.authenticate(issuer.token())


def test_a_token_is_remembered_no_longer_than_it_lasts(tokens, issuer, now):
    lasting, ending = issuer.token(), issuer.token(exp=int(time.time()) - 5)
    assert tokens.remembered(lasting) is None
    for token in (lasting, ending):
        tokens.authenticate(token)
    assert tokens.remembered(lasting) == Principal("desk", frozenset({"read:fs_v1"}))
    assert tokens.remembered(ending) is None
    now[0] += oidc.REMEMBERED_SECONDS
    assert tokens.remembered(lasting) is None


def test_an_issuer_has_to_be_reached_over_tls():
    assert checked("https://login.example.com/realm", "issuer") == "https://login.example.com/realm"
    for url in ("http://login.example.com", "ftp://127.0.0.1", "login.example.com", "", "https://"):
        with pytest.raises(ConfigError, match="has to be an https:// address"):
            checked(url, "issuer")
