"""Addresses of those who connect: read in one way at every door."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

V6_HOME: Final = 64
"""Bits of an IPv6 address that one subscriber can't change."""


def address_of(host: str) -> Address | None:
    """Return an address, IPv4 where IPv6 carries one, without a link-local one's zone; None for what is none."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens there."""
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Return whether an address lies in one of these networks."""
    return address is not None and any(address in network for network in networks)


def home(address: Address | None) -> str:
    """Return under what name an address is counted: who has one IPv6 address has many."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, V6_HOME), strict=False))
    return str(address)
