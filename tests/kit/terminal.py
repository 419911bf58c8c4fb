"""`sems-gateway` on pseudo-terminals, and what it may write to one."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager

from gateway.core.text import MAX_LINE
from tests.kit.process import COMMAND, eventually

COLUMNS = 200
HOSTILE = "\x1b[2J\x1b]0;x\x07\x1b[8m\u202e\r\n\x9b2J\x85\u200b\u2066\u2028[/][bold]\x7f" + "y" * 10_000
"""Clears, renames, hides, turns round, overwrites; ends markup that was not begun; and does not end."""
_WINDOW = struct.pack("HHHH", 50, COLUMNS, 0, 0)
_OURS = re.compile(r"\x1b\[(?:\?25[lh]|2K|1A|(?!8m)\d*(?:;\d+)*m)")
"""Colours, and what a progress bar moves and hides the cursor with."""
_HARM = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_SERVER = """
import fcntl, json, os, pty, sys, termios
from gateway.cli.root import COMMANDS, loaded
for name in COMMANDS:
    loaded(name)
for line in sys.stdin:
    arguments = json.loads(line)
    child, terminal = pty.fork()
    if not child:
        fcntl.ioctl(1, termios.TIOCSWINSZ, bytes.fromhex(os.environ["WINDOW"]))
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", 1), open(2, "w", 1)
        sys.argv = ["sems-gateway", *arguments]
        for name in [name for name in sys.modules if name.startswith("gateway.cli")]:
            del sys.modules[name]  # its consoles look at what they write to
        code = 1
        try:
            from gateway.cli import main
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    written = b""
    try:
        while more := os.read(terminal, 65536):
            written += more
    except OSError:
        pass
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, written.decode("latin-1")]), flush=True)
"""


def harm(written):
    """Return what a program wrote to a terminal that is harmful; nothing where all is well."""
    moved = re.finditer(r".{0,40}\r(?!\r?\n|\x1b\[2K|\x1b\[1A).{0,40}", written)
    found = [f"cursor moved: {match[0]!r}" for match in moved]
    rest = _OURS.sub("", written.replace("\r", ""))
    found += [f"control: {rest[max(0, m.start() - 40) : m.end() + 20]!r}" for m in _HARM.finditer(rest)]
    return found + [f"long line: {len(line)}" for line in rest.split("\n") if len(line) > MAX_LINE + COLUMNS]


class Terminals:
    """Runs commands to their ends, each on a terminal of its own. The program is loaded once, and forked for each."""

    def __init__(self):
        env = os.environ | {"WINDOW": _WINDOW.hex(), "TERM": "xterm-256color"}
        env.pop("SEMS_GATEWAY_LOG__FORMAT", None)  # as a person has it
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def run(self, *arguments):
        """Return the exit code, and all that was written."""
        self._server.stdin.write(json.dumps([str(each) for each in arguments]) + "\n")
        self._server.stdin.flush()
        code, written = json.loads(self._server.stdout.readline())
        return code, written.encode("latin-1").decode()

    def close(self):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


class OnTerminal:
    """A program that runs on, on a terminal."""

    def __init__(self, *arguments):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _WINDOW)
        command = [*COMMAND, *map(str, arguments)]
        env = os.environ | {"TERM": "xterm-256color"}
        env.pop("SEMS_GATEWAY_LOG__FORMAT", None)  # as a person has it
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        self._master = master
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while more := os.read(self._master, 65536):
                self._written += more
        except OSError:
            pass

    @property
    def written(self):
        return self._written.decode(errors="replace")

    def says(self, words):
        eventually(lambda: words in self.written, otherwise=lambda: f"no {words!r} in {self.written[-3000:]}")

    def type(self, line):
        """Answer what was asked last; what was said before counts no more for `says`."""
        self._written = b""
        os.write(self._master, f"{line}\n".encode())

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        self._reader.join(60)
        os.close(self._master)


@contextmanager
def on_terminal(*arguments):
    program = OnTerminal(*arguments)
    try:
        yield program
    finally:
        program.end()
