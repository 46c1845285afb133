"""Which IP addresses belong to the public internet: a list of our own.

Python's ``is_global`` differs between patch releases, and calls addresses public that lead to IPv4 hosts or to a
cloud's metadata. Sources: IANA's special-purpose address registries (RFC 6890), and the clouds' documentation.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Final

NOT_PUBLIC: Final = tuple(
    map(
        ip_network,
        [
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by carriers; metadata of Alibaba Cloud
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's platform
            "169.254.0.0/16",  # link-local; metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments; metadata of Oracle Cloud
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # AMT
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            # IPv6 outside of 2000::/3: unspecified, loopback, IPv4-compatible (::/96), IPv4-mapped (::ffff:0:0/96) and
            # IPv4-translated (::ffff:0:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only, segment routing,
            # unique local with metadata of AWS and Google, link-local, site-local, multicast; and what is not assigned.
            "::/3",
            "4000::/2",
            "8000::/1",
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID, AMT, drones
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3ffe::/16",  # former 6bone
            "3fff::/20",  # documentation
        ],
    )
)
"""Networks that no webhook of the public internet is in."""


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet.

    Args:
        address: IPv4 or IPv6, with or without a zone.

    Returns:
        False for an address of `NOT_PUBLIC`.

    Raises:
        ValueError: It is not an IP address.
    """
    ip = ip_address(address)
    return not any(ip in network for network in NOT_PUBLIC)
