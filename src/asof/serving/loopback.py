"""What is of this machine alone: addresses to bind to, and hosts that a request names."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from asof.errors import AccessError

PROXIES = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
"""Headers of requests that a proxy handed on."""
ALONE = "this service is open to its own machine alone"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name other than localhost may be anywhere."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_of(authority: str) -> str:
    """The host of `host`, `host:port` or `[address]:port`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def check_local(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise `AccessError` for a request that an open service gets from elsewhere, by way of a program of its machine.

    A page of anybody's, opened in a browser here, can have a name that it made point to this machine (DNS rebinding): its requests then
    name that host. Those it sends to this machine by its right name tell where they come from.
    """
    hosts: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"origin" and not is_loopback(urlsplit(value.decode("latin-1")).hostname or ""):
            raise AccessError(f"{ALONE}, and the request comes from a page elsewhere")
        elif name in PROXIES:
            raise AccessError(f"{ALONE}, and the request came through a proxy: make a key (asof keys create)")
    if len(hosts) != 1 or not is_loopback(host_of(hosts[0].decode("latin-1"))):
        raise AccessError(f"{ALONE}: ask it as http://127.0.0.1 or http://localhost, or make a key (asof keys create)")
