"""Networks, as a configuration names them."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator


def _network(raw: Any) -> Any:
    try:
        return ip_network(raw)
    except (ValueError, TypeError) as error:
        try:
            meant = ip_network(raw, strict=False)
        except (ValueError, TypeError):
            raise ValueError("this is no network; write e.g. 192.168.1.0/24, or 192.168.1.7 for one machine") from error
        raise ValueError(
            f"{raw} is a machine and a network at once; write {meant} for the network, "
            f"or {str(raw).partition('/')[0]} for the machine"
        ) from error


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
