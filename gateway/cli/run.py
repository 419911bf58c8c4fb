"""`sems-gateway run`."""

import os
from typing import Final

import structlog

from gateway.cli.config import ConfigFile, load
from gateway.cli.loop import run_on_loop
from gateway.cli.output import fail
from gateway.journal.file import JournalError
from gateway.run.app import Gateway, run_until_signal
from gateway.run.data_dir import DataDirError
from gateway.run.log_writer import writer
from gateway.run.logs import configure
from gateway.run.stopping import leave

FLUSH_WITHIN: Final = 0.3
"""Seconds."""


def run(config: ConfigFile) -> None:
    """`sems-gateway run`."""
    os.umask(0o077)
    loaded = load(config)
    configure(loaded.root.log)
    writer.start()
    for warning in loaded.warnings():
        structlog.get_logger().warning(warning)
    try:
        run_on_loop(run_until_signal(Gateway(loaded)))
    except (DataDirError, JournalError) as error:
        fail(str(error))
    finally:
        writer.flush(FLUSH_WITHIN)
    leave()
