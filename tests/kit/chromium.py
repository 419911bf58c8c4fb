"""A real browser without a window, which reaches nothing but this machine."""

import asyncio
import base64
import fcntl
import json
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager, suppress

import pytest

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--metrics-recording-only", "--no-pings",
)  # fmt: skip
PATIENCE = 120
"""Seconds after which what should come will not."""
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
        await _end(process)


class Browser:
    """A browser that is driven from outside, by the DevTools protocol over a pipe: it needs no port and no package."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._answers = {}
        self._last = 0
        self.tabs = {}
        """Session → its tab."""

    async def read(self):
        """Take in what the browser says, until it ends."""
        with suppress(asyncio.IncompleteReadError):
            while raw := await self._reader.readuntil(b"\0"):
                message = json.loads(raw[:-1])
                if "id" in message:
                    self._answers.pop(message["id"]).set_result(message)
                elif tab := self.tabs.get(message.get("sessionId")):
                    tab.note(message["method"], message["params"])
        for answer in self._answers.values():
            answer.cancel()

    async def call(self, method, session=None, **params):
        """Call a method of the protocol. Fails the test where that fails."""
        self._last += 1
        self._answers[self._last] = answer = asyncio.get_running_loop().create_future()
        message = {"id": self._last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self._writer.write(json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(PATIENCE):
            found = await answer
        assert "error" not in found, found
        return found["result"]

    @asynccontextmanager
    async def tab(self, url, **looks):
        """Give a `Tab` that shows a page, with a storage of its own. `looks` are those of `Tab.look`."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        session = (await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        tab = self.tabs[session] = Tab(self, session)
        try:
            for domain in ("Runtime", "Log", "Network", "Page"):
                await tab.call(f"{domain}.enable")
            await tab.look(**looks)
            await tab.open(url)
            yield tab
        finally:
            del self.tabs[session]
            await self.call("Target.disposeBrowserContext", browserContextId=context)


class Tab:
    """One page."""

    def __init__(self, browser, session):
        self._browser = browser
        self._session = session
        self.console = []
        """What it wrote to its console as an error or a warning, exceptions among it: `(source, text)`."""
        self.requests = []
        """The URLs that it asked for."""

    def note(self, method, params):
        """Take in what the browser says of it."""
        if method == "Runtime.exceptionThrown":
            self.console.append(("exception", json.dumps(params["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(("console", json.dumps(params["args"])))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append((params["entry"]["source"], json.dumps(params["entry"])))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    async def call(self, method, **params):
        """Call a method of the protocol, of this page."""
        return await self._browser.call(method, self._session, **params)

    async def look(self, *, width=1280, height=800, scheme="light", still=True):
        """Have the page shown so large, and light or dark; `still`: without movement."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce" if still else ""}
        await self.call(
            "Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()]
        )

    async def open(self, url):
        """Show a page."""
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(PATIENCE):
            while not await self.run("document.readyState === 'complete' && location.href !== 'about:blank'"):
                await asyncio.sleep(0.02)

    async def picture(self):
        """Return what is shown, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def run(self, script):
        """Return what an expression of JavaScript comes to, as JSON has it."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script):
        """Wait until an expression is true; return what it came to."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not (found := await self.run(script)):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"never true: {script}\n{await self.run('document.body.innerText')}") from None
        return found

    async def key(self, key, *, shift=False):
        """Press a key by the name that it has in JavaScript."""
        code, typed = KEYS.get(key, (0, ""))
        more = {"text": typed} if typed else {}
        for type_ in ("keyDown" if typed else "rawKeyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=type_, key=key, code=key, windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0, **(more if type_ == "keyDown" else {}),
            )  # fmt: skip

    async def type(self, words):
        """Type into what has the focus."""
        await self.call("Input.insertText", text=words)


KEYS = {
    "Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, ""), " ": (32, " "), "PageDown": (34, ""), "End": (35, ""),
    "Home": (36, ""), "ArrowUp": (38, ""), "ArrowDown": (40, ""),
}  # fmt: skip
"""Name → its code on Windows, by which the browser knows it, and what it types."""


_PIPED = """
import os, sys
for place, fd in zip((3, 4), sys.argv[1:3]):
    os.dup2(int(fd), place)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The protocol is spoken on the descriptors 3 and 4."""


@asynccontextmanager
async def driven(directory):
    """Give a `Browser`."""
    program = need_chromium()
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # So high that none of them is 3 or 4 itself.
    passed = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PIPED, *map(str, passed), program, *OPTIONS, "--remote-debugging-pipe",
            f"--user-data-dir={directory}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True, pass_fds=passed, env=os.environ | {"HOME": str(directory)},
        )  # fmt: skip
    finally:
        for fd in passed:
            os.close(fd)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    read, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_in, "rb"))
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(ours_out, "wb"))
    browser = Browser(reader, writer)
    reading = asyncio.create_task(browser.read())
    try:
        yield browser
    finally:
        await _end(process)
        reading.cancel()
        read.close()
        writer.close()


async def _end(process):
    # With its children, which are of the session that it was started in.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(END):
            await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
