"""A real browser without a window, which reaches nothing but this machine."""

import asyncio
import os
import shutil
import signal
from contextlib import asynccontextmanager, suppress

import pytest

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--metrics-recording-only", "--no-pings",
)  # fmt: skip
END = 30
"""Seconds for it to end by itself."""


def need_chromium():
    """Return the program; skip the test where it is missing, or fail where nothing may be skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        text = "Chromium is not installed (tests/programs does it; Debian: chromium)"
        pytest.fail(text) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(text)
    return found


@asynccontextmanager
async def browsing(url, directory, names):
    """Show a page while the body runs. `names` are host → address that it leads to; no others are looked up."""
    rules = [f"MAP {name} {address}" for name, address in names.items()]
    rules += ["MAP * ~NOTFOUND", "EXCLUDE 127.0.0.1", "EXCLUDE localhost"]
    process = await asyncio.create_subprocess_exec(
        need_chromium(), *OPTIONS, f"--user-data-dir={directory}", f"--host-resolver-rules={', '.join(rules)}", url,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True, env=os.environ | {"HOME": str(directory)},
    )  # fmt: skip
    try:
        yield process
    finally:
        # With its children, which are of the session that it was started in.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(END):
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
