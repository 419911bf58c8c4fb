"""Where the demo listens."""

import msgspec


class Ports(msgspec.Struct, frozen=True):
    """Where things listen, on 127.0.0.1."""

    mqtt: int
    modbus: int
    sems_url: str
    web: int
    web_token: str
    """With which a command over HTTP is permitted."""
