"""Ports from the kernel, held until the tests end, so that it gives them to nobody else.

Bound, not listened on: a server with SO_REUSEADDR, as servers on Linux have it, may take the port; until then a
connection to it is refused.
"""

import socket

_held = []


def free_port():
    holder = _held_at(0)
    return holder.getsockname()[1]


def free_ports(count):
    """Return the first of `count` consecutive free ports."""
    for _ in range(100):
        first = free_port()
        try:
            for n in range(1, count):
                _held_at(first + n)
        except (OSError, OverflowError):
            continue
        else:
            return first
    raise RuntimeError(f"no {count} free ports in a row")


def _held_at(port):
    holder = socket.socket()
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
    except BaseException:
        holder.close()
        raise
    _held.append(holder)
    return holder
