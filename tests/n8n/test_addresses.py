"""Networks that are not public, compared with IANA's registries and with Python's ``is_global``."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.n8n.addresses import NOT_PUBLIC, is_public


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "168.63.129.15", "192.0.1.1", "2606:4700::1111", "2a00:1450:4001::8", "2001:200::1"],
)
def test_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.31.255.255"),  # noqa: S104
        *("192.0.0.1", "192.0.0.192", "192.168.1.1", "198.19.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255"),
        "168.63.129.16",
        *("::", "::1", "::7f00:1", "::a9fe:a9fe", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:a9fe:a9fe"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "100::1", "2001:0:7f00::1", "2001:db8::1", "2002:7f00:1::"),
        *("fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1"),
    ],
)
def test_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("network", NOT_PUBLIC, ids=str)
def test_first_and_last_address_of_each_network_are_not_public(network: IPv4Network | IPv6Network) -> None:
    assert not is_public(str(network[0]))
    assert not is_public(str(network[-1]))


@given(address=st.ip_addresses() | st.ip_addresses(network="2000::/3"))
def test_addresses_that_python_calls_special_are_not_public(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert not is_public(str(address))


@given(address=st.ip_addresses(v=4))
def test_ipv6_address_that_embeds_ipv4_is_not_public(address: IPv4Address) -> None:
    for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::"):
        assert not is_public(str(IPv6Address(int(IPv6Address(prefix)) + int(address))))
