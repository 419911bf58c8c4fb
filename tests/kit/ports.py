"""Ports from the kernel."""

import socket


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def free_ports(count):
    """Return the first of `count` consecutive free ports."""
    for _ in range(100):
        first = free_port()
        servers = []
        try:
            servers += [socket.create_server(("127.0.0.1", first + n)) for n in range(count)]
        except (OSError, OverflowError):
            continue
        else:
            return first
        finally:
            for server in servers:
                server.close()
    raise RuntimeError(f"no {count} free ports in a row")
