"""Refused addresses: compared with ipaddress, also for IPv4 in each IPv6 form."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clan_discovery.syntax.networks import refusal

LOOPBACK = 0x7F000001
METADATA = 0xA9FEA9FE


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", None),
        ("100.64.0.1", None),
        ("192.168.1.1", None),
        ("fd00::1", None),
        ("2001:db8::1", None),
        ("127.1.2.3", "loopback"),
        ("0.0.0.0", "unspecified"),  # noqa: S104 - not listened on
        ("0.1.2.3", "unspecified"),
        ("169.254.1.1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("255.255.255.255", "reserved or broadcast"),
        ("192.0.0.192", "of no host (RFC 6890)"),
        ("192.0.2.1", None),
        ("168.63.129.16", "the metadata address of a cloud"),
        ("168.63.129.17", None),
        ("fd20:ce::254", "the metadata address of a cloud"),
        ("::ffff:0:a9fe:a9fe", "the metadata address of clouds (169.254.169.254) in IPv6"),
        ("64:ff9b:1::a9fe:a9fe", "the metadata address of clouds (169.254.169.254) in IPv6"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
        ("fd00:ec2::254", "the metadata address of a cloud"),
        ("::ffff:127.0.0.1", "loopback (127.0.0.1) in IPv6"),
        ("::127.0.0.1", "loopback (127.0.0.1) in IPv6"),
        ("64:ff9b::a9fe:a9fe", "the metadata address of clouds (169.254.169.254) in IPv6"),
        ("2002:7f00:1::", "loopback (127.0.0.1) in IPv6"),
        ("100.100.100.100", "tailscaled's own resolver"),
        ("fd7a:115c:a1e0::53", "tailscaled's own resolver"),
        ("fd7a:115c:a1e0:0:0:0:0:0053", "tailscaled's own resolver"),
        ("::ffff:100.100.100.100", "tailscaled's own resolver (100.100.100.100) in IPv6"),
        ("100.100.100.200", None),
        ("fec0::1", "site-local (RFC 3879)"),
        ("feff::1", "site-local (RFC 3879)"),
        ("2001:db8::5efe:7f00:1", "loopback (127.0.0.1) in IPv6"),
        ("fd7a:115c:a1e0::200:5efe:a9fe:a9fe", "the metadata address of clouds (169.254.169.254) in IPv6"),
        ("2001:db8::5efe:a00:5", None),
        ("2001:0:102:304:0:0:5601:5601", "the metadata address of clouds (169.254.169.254) in IPv6"),
        ("2001:0:7f00:1::f5ff:fffa", "loopback (127.0.0.1) in IPv6"),
        ("fd7a:115c:a1e0:b1a:0:7:7f00:1", "loopback (127.0.0.1) in IPv6"),
        ("fd7a:115c:a1e0:b1a:0:7:a00:5", None),
        ("::5", "unspecified (0.0.0.5) in IPv6"),
        ("64:ff9b:1::10.0.0.5", None),
        ("64:ff9b::127.0.0.1", "loopback (127.0.0.1) in IPv6"),
    ],
)
def test_which_addresses_are_refused(address: str, why: str | None) -> None:
    """Alone, or embedded in IPv6."""
    assert refusal(address) == why


def rfc6052(prefix: int, length: int, host: int) -> IPv6Address:
    """Embed an IPv4 address in a NAT64 prefix (RFC 6052, 2.2): bits 64 to 71 are zero."""
    bits = f"{prefix >> (128 - length):0{length}b}{host:032b}" if length < 96 else f"{prefix >> 32:096b}{host:032b}"
    if length < 96:
        bits = f"{bits[:64]}{'0' * 8}{bits[64:]}"
    return IPv6Address(int(bits.ljust(128, "0"), 2))


@pytest.mark.parametrize("length", [32, 40, 48, 56, 64, 96])
@pytest.mark.parametrize("host", [LOOPBACK, METADATA, 0xE0000001, 0x64646464, 0xFFFFFFFF])
def test_refused_addresses_are_found_in_any_nat64_prefix(length: int, host: int) -> None:
    """64:ff9b::/96, and any prefix length in 64:ff9b:1::/48."""
    prefixes = [0x0064FF9B << 96, 0x0064FF9B0001 << 80]
    for prefix in prefixes:
        if length >= 48 or prefix == prefixes[0]:
            written = rfc6052(prefix, length, host)
            assert refusal(str(written)) is not None, written


@pytest.mark.parametrize("host", ["10.0.0.5", "192.168.1.20", "100.64.0.9", "93.184.216.34"])
def test_other_hosts_behind_nat64_are_targets(host: str) -> None:
    """A scraper without IPv4 needs them."""
    assert refusal(f"64:ff9b::{host}") is None
    assert refusal(f"64:ff9b:1::{host}") is None
    assert refusal(str(rfc6052(0x0064FF9B0001 << 80, 48, int(IPv4Address(host))))) is None


v4 = st.ip_addresses(v=4) | st.sampled_from(list(map(IPv4Address, ("100.100.100.100", "169.254.169.254", "127.0.0.1"))))


@given(v4)
@example(IPv4Address("100.100.100.100"))
def test_ipaddress_agrees_on_ipv4(address: IPv4Address) -> None:
    """Loopback, link-local, multicast, reserved and unspecified addresses are refused, others are not."""
    local = address.is_loopback or address.is_link_local or address.is_unspecified
    if local or address.is_multicast or address.is_reserved:
        assert refusal(str(address)) is not None
    elif address.is_global and address not in ip_network("192.0.0.0/24") and str(address) != "168.63.129.16":
        assert refusal(str(address)) is None
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        if address in ip_network(network):
            assert refusal(str(address)) is None


@given(st.ip_addresses(v=6))
def test_ipaddress_agrees_on_ipv6(address: IPv6Address) -> None:
    """Also in the long form and in capitals."""
    said = refusal(str(address))
    assert refusal(address.exploded) == said
    assert refusal(str(address).upper()) == said
    local = address.is_loopback or address.is_link_local or address.is_unspecified
    if local or address.is_multicast or address.is_site_local:
        assert said is not None


@given(v4, st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_embedding_in_ipv6_does_not_change_the_decision(host: IPv4Address, network: int, more: int) -> None:
    """For refused and for other addresses."""
    number = int(host)
    wrapped = [
        0xFFFF << 32 | number,
        0xFFFF0000 << 32 | number,
        0x0064FF9B << 96 | number,
        0x2002 << 112 | number << 80 | more,
        0x20010000 << 96 | more << 32 | number ^ 0xFFFFFFFF,
        0xFD7A115CA1E00B1A << 64 | more << 32 | number,
        (network | 1 << 61) << 64 | 0x5EFE << 32 | number,
        (network | 1 << 61) << 64 | 0x02005EFE << 32 | number,
    ]
    for form in map(IPv6Address, wrapped):
        if refusal(str(host)) is not None:
            assert refusal(str(form)) is not None, form
    if refusal(str(host)) is None:
        assert refusal(f"::ffff:{host}") is None
        assert refusal(f"64:ff9b::{host}") is None


def test_the_user_can_allow_and_deny_networks() -> None:
    """Also for embedded addresses; deny goes before allow."""
    local, all_ = ip_network("127.0.0.0/8"), ip_network("0.0.0.0/0")
    assert refusal("127.0.0.1", [local]) is None
    assert refusal("::ffff:127.0.0.1", [local]) is None
    assert refusal("100.64.0.1", [], [ip_network("100.64.0.0/10")]) == "in deny_networks (100.64.0.0/10)"
    assert refusal("64:ff9b::a00:5", [], [ip_network("10.0.0.0/8")]) == "in deny_networks (10.0.0.0/8)"
    assert refusal("127.0.0.1", [local], [all_]) == "in deny_networks (0.0.0.0/0)"
    assert refusal("169.254.0.1", [local]) == "link-local"
