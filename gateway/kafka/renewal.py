"""Passwords and certificates that are renewed while the gateway runs: their files are looked at again and again."""

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Final

import structlog

from gateway.core.errors import GatewayError
from gateway.kafka.settings import KafkaConnection

LOOK: Final = 5.0
"""Seconds between two looks at the files."""

Mark = tuple[tuple[int, int, int], ...]


async def watch_credentials(connection: KafkaConnection, log: structlog.stdlib.BoundLogger) -> None:
    """Raise GatewayError once something was renewed, so that the clients are made anew, with it.

    librdkafka reads certificates once, and may stand still when it is given another password. Where no file is named,
    there is nothing to do.
    """
    sasl, tls = connection.sasl, connection.tls
    password = sasl.current_password() if sasl is not None else ""
    files = tls.files if tls is not None else ()
    seen, trouble = _mark(files), ""
    while (sasl is not None and sasl.password_file is not None) or files:
        await asyncio.sleep(LOOK)
        if sasl is not None and sasl.current_password() != password:
            raise GatewayError("the file of the SASL password has changed; connecting anew with it")
        if tls is None or _mark(files) == seen:
            continue
        try:
            tls.check()
        except ValueError as error:
            # Perhaps only one of them has been written yet.
            if str(error) != trouble:
                log.warning(
                    "the certificate files have changed and can't be used; the connection stays", why=str(error)
                )
            trouble = str(error)
            continue
        raise GatewayError("the certificate files have changed; connecting anew with them")


def _mark(files: Collection[Path]) -> Mark:
    """Return what changes when a file is written or replaced."""
    marks = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            marks.append((0, 0, 0))
        else:
            marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(marks)
