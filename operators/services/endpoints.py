"""Addresses of other systems that we post to. Whoever names one must not reach our own network through us."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from operators.errors import Misfit

LONGEST = 2000
#: Seconds for everything: looking the name up, connecting, sending, and the first word of the answer.
PATIENCE = 15.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
REMEDY = "OPENVIBE_WEBHOOK_PRIVATE allows it"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotTaken(Exception):
    """The address did not take what was posted; the text says why. `gone` says that it never will."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


def checked(url: str) -> str:
    """Return an address to which events may be posted. What its name leads to is looked up at each post.

    Raises:
        Misfit: it is no http(s) address, or one of this host or a private network.
    """
    if problem := _problem(url):
        raise Misfit(f"url: {problem}", errors=[{"field": "url", "message": problem}])
    return url


def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Post to an address. Redirects are not followed, and the answer's body is not read.

    Raises:
        NotTaken: it did not answer in time, or with another status than 2xx.
    """
    try:
        status = asyncio.run(_posted(url, body, headers))
    except TimeoutError as error:
        raise NotTaken(f"no answer within {PATIENCE:g} seconds") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise NotTaken(f"{type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        raise NotTaken(f"answered {status}", gone=status == 410)


async def _posted(url: str, body: bytes, headers: Mapping[str, str]) -> int:
    async with asyncio.timeout(PATIENCE):
        parts = httpx.URL(url)
        address = await _address(parts.host, parts.port or (443 if parts.scheme == "https" else 80))
        # The connection goes to the address that was checked: a second look at the name may find another one.
        target = parts.copy_with(host=str(address))
        named = {**headers, "Host": parts.netloc.decode("ascii")}
        async with httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=PATIENCE) as client:
            request = client.build_request(
                "POST", target, content=body, headers=named, extensions={"sni_hostname": parts.host}
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            await answer.aclose()
            return answer.status_code


async def _address(host: str, port: int) -> Address:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
    for address in addresses:
        if not settings.OPENVIBE.webhook_private and not public(address):
            raise NotTaken(f"{host} leads to {address}, which is private; {REMEDY}")
    return addresses[0]


def public(address: Address) -> bool:
    """Tell whether an address is one of the Internet at large, also through the gates between its two versions."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        return f"is no address: {error}"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "must begin with http:// or https:// and name a host"
    if parts.username or parts.password or any(not 0x20 < ord(letter) < 0x7F for letter in url):
        return "must hold neither a password nor anything but visible ASCII characters"
    return "" if settings.OPENVIBE.webhook_private or _may_be_public(host) else f"is private; {REMEDY}"


def _may_be_public(host: str) -> bool:
    if host.rstrip(".") == "localhost" or host.rstrip(".").endswith((".localhost", ".local", ".internal")):
        return False
    try:
        return public(ipaddress.ip_address(host))
    except ValueError:
        return True


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
