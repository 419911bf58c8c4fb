"""A copy of what an earlier version left, made once another one runs, and kept until the next upgrade.

It is a backup like any other (`gateway/run/backup.py`), made beside the work of the gateway, so no door waits for it.
"""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from gateway import __version__
from gateway.core.kept_file import KeptFile

if TYPE_CHECKING:
    from gateway.run.settings import Config

FILE: Final = "version.json"
COPY: Final = "before-upgrade.backup"

log = structlog.get_logger("gateway")


class _File(msgspec.Struct):
    gateway: str
    """The version that ran last with this data_dir."""


async def copy_after_upgrade(config: "Config", now: datetime) -> None:
    """Where another version ran here before, make the copy; then note that this one does. Trouble is logged."""
    file = KeptFile(
        config.data_dir / FILE,
        _File,
        log,
        unreadable="which version ran before can't be read, so no copy is made",
        unwritable="which version runs can't be kept",
    )
    found = await asyncio.to_thread(file.read)
    if found is not None and found.gateway == __version__:
        return
    if found is not None:
        target = config.data_dir / COPY
        from gateway.run import backup  # noqa: PLC0415 - with what packs it, only once a version

        try:
            await asyncio.to_thread(backup.make, config, target, now, secrets=False, force=True, version=found.gateway)
        except backup.BackupError as error:
            log.warning("no copy of what the version before left could be made", before=found.gateway, error=str(error))
            return
        log.info("a copy of what the version before left is kept until the next upgrade", before=found.gateway,
                 file=str(target))  # fmt: skip
    await file.write(msgspec.json.encode(_File(__version__)))
