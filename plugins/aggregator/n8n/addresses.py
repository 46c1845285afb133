"""Guard which addresses a webhook URL may reach (server-side request forgery).

Public addresses are allowed for everyone. All others are allowed only for the origins that the connection lists.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from typing import Any, Final

import httpx

from aggregator.core.errors import PermanentError
from aggregator.n8n.errors import N8nRefusedError, N8nUnavailableError

_SCHEMES: Final = frozenset({"http", "https"})

# Python's ``is_global`` differs between patch releases, and calls addresses public that lead to IPv4 hosts or to a
# cloud's metadata. Sources: IANA's special-purpose address registries (RFC 6890) and the clouds' documentation.
NOT_PUBLIC: Final = tuple(
    map(
        ip_network,
        [
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier-grade NAT; metadata of Alibaba Cloud
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # platform services of Azure
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved; broadcast
            # IPv6 outside 2000::/3: unspecified, loopback, IPv4-compatible (::/96), IPv4-mapped (::ffff:0:0/96) and
            # IPv4-translated (::ffff:0:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only, segment routing,
            # unique local with metadata of AWS and Google, link-local, site-local, multicast; unassigned.
            "::/3",
            "4000::/2",
            "8000::/1",
            "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID, AMT, drones
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # former 6bone
            "3fff::/20",  # documentation
        ],
    )
)
"""Networks that are not part of the public internet."""


def is_public(address: str) -> bool:
    """Check whether an IPv4 or IPv6 address is part of the public internet: not in `NOT_PUBLIC`.

    Raises:
        ValueError: The text is not an IP address.
    """
    ip = ip_address(address)
    return not any(ip in network for network in NOT_PUBLIC)


def parse_url(text: str) -> httpx.URL:
    """Parse the URL of a webhook: ``http`` or ``https``, with a host, without credentials.

    Raises:
        N8nRefusedError: The text is not such a URL.
    """
    url = _parse(text)
    if url.scheme not in _SCHEMES or not url.host or b"%" in url.raw_host:
        msg = "The webhook URL is not an http or https URL with a host. Nothing was sent. Correct the URL."
        raise N8nRefusedError(msg)
    if url.userinfo:
        msg = f"The webhook URL at {origin_of(url)} contains credentials. Nothing was sent. Remove them from the URL."
        raise N8nRefusedError(msg)
    return url


def origin_of(url: httpx.URL) -> str:
    """Scheme, host and, unless it is the scheme's default, port of a URL."""
    return f"{url.scheme}://{url.netloc.decode()}"


def parse_origins(origins: Any, conn_id: str) -> frozenset[str]:
    """Parse ``allowed_origins`` of a connection into the form that `origin_of` returns.

    Raises:
        PermanentError: The value is not a list of origins.
    """
    urls = [_parse(origin) for origin in origins] if isinstance(origins, list) else [httpx.URL()]
    if any(url.scheme not in _SCHEMES or not url.host or url.userinfo or url.raw_path != b"/" for url in urls):
        msg = (
            f"allowed_origins in the extra of connection {conn_id!r} is not a list of origins (scheme, host and "
            'port). Nothing was sent. Set it like this: {"allowed_origins": ["https://n8n.example.com"]}.'
        )
        raise PermanentError(msg)
    return frozenset(map(origin_of, urls))


def resolve(url: httpx.URL, *, allowed: bool) -> list[str]:
    """Resolve the host of a webhook URL and check its addresses.

    Connect to the returned addresses, the preferred one first, instead of the host name: a second lookup could return
    other addresses. If the connection allows this origin, any address is accepted.

    Raises:
        N8nUnavailableError: The name cannot be resolved.
        N8nRefusedError: The host is not a valid name, or an address is not public and the origin is not allowed.
    """
    origin = origin_of(url)
    try:
        found = socket.getaddrinfo(url.raw_host.decode(), None, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = error.strerror or error
        msg = f"The host of {origin} cannot be resolved: {reason}. Nothing was sent. Check the host name and the DNS."
        raise N8nUnavailableError(msg) from None
    except UnicodeError:
        msg = f"The host of {origin} is not a valid host name. Nothing was sent. Correct the webhook URL."
        raise N8nRefusedError(msg) from None
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    private = [] if allowed else [address for address in addresses if not is_public(address)]
    if private:
        msg = (
            f"{origin} resolves to {private[0]}, which is not a public address. Nothing was sent. If this is your n8n, "
            f"add {origin} to allowed_origins in the extra of the connection."
        )
        raise N8nRefusedError(msg)
    return addresses


def _parse(text: Any) -> httpx.URL:
    """A URL, or an empty one if the value is not a URL."""
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, TypeError, ValueError):
        return httpx.URL()
