"""What a service manager is told, by systemd's protocol (sd_notify(3)): that all is up, that it lives, that it ends.

Where nobody asked for it (NOTIFY_SOCKET is not set), nothing is said.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self

BEATS: Final = 3
"""In the time within which the service manager wants to hear something."""
MICROSECONDS: Final = 1_000_000


class ServiceManager:
    """Says it to one address."""

    def __init__(self, address: str, watchdog: float | None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return the one that started this process; where it is none, one that nothing is said to."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        watchdog = int(microseconds) / MICROSECONDS if microseconds.isdigit() and ours else None
        return cls(environment.get("NOTIFY_SOCKET", ""), watchdog)

    def ready(self, status: str) -> None:
        """Say that all has been started."""
        self._say(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """Say how it does, in one line for `systemctl status`."""
        self._say(f"STATUS={status}")

    def stopping(self) -> None:
        """Say that it ends, in good order."""
        self._say("STOPPING=1")

    async def keep_alive(self) -> None:
        """Say again and again that the loop goes on, until cancelled. A loop that hangs says nothing."""
        while self._address and self._watchdog:
            self._say("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / BEATS)

    def _say(self, text: str) -> None:
        if not self._address:
            return
        # A service manager that does not listen is no reason to end.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(text.encode(), self._address)
