"""Programs of this repository as processes of their own that need not load themselves: a second of processor time each.

A process of ours that has loaded all modules waits, and forks. The child begins as `python -m` does, with its own
descriptors, environment, directory and signals, and ends as it does. What is about loading itself starts afresh.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
READ_WHILE_LOADING = ("PYTHON", "LD_", "LC_", "LANG", "COVERAGE", "TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
"""Beginnings of variables that a program, or a library, reads once."""
OPTIONS = {"env", "cwd"}
"""What a child may be started with."""
LARGEST = 1 << 17
"""Bytes of a request."""
ONE_AT_A_TIME = threading.Lock()


def forkable(command, options):
    """Whether a command is a module of ours that begins like any other."""
    if command[:2] != [sys.executable, "-m"] or not options.keys() <= OPTIONS:
        return False
    env = options.get("env") or os.environ
    changed = {name for name in env.keys() | os.environ.keys() if env.get(name) != os.environ.get(name)}
    return not any(name.startswith(READ_WHILE_LOADING) for name in changed)


class Forked:
    """A child, with what `subprocess.Popen` has that tests use. `stdout` and `stderr` are descriptors."""

    def __init__(self, command, stdout, stderr, *, env=None, cwd=None):
        self.args = command
        self.returncode = None
        self._ended, report = os.pipe()
        request = {"arguments": command[2:], "env": dict(env or os.environ), "cwd": str(cwd or Path.cwd())}
        try:
            with ONE_AT_A_TIME:
                parent = _parent()
                socket.send_fds(parent, [json.dumps(request).encode()], [stdout, stderr, report])
                self.pid = int(parent.recv(64))
        finally:
            os.close(report)

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            watched = select.poll()
            watched.register(self._ended, select.POLLIN)
            if not watched.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout)
            # There is nothing where the process that forks has gone itself.
            self.returncode = int(os.read(self._ended, 64) or -signal.SIGKILL)
            os.close(self._ended)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@functools.cache
def _parent():
    """The connection to the process that forks, which this begins; it and all its children end with us."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with theirs:
        # Its output is a pipe, as its children's is.
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )

    @atexit.register
    def end():
        ours.close()
        process.wait()

    return ours


# in the process that forks


def _load():
    import gateway

    for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread would not be there in a child"


def _serve(connection):
    """Fork for each request. Returns the request of a child, in the child alone."""
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reports = {}
    watched = select.poll()
    watched.register(connection, select.POLLIN)
    watched.register(woken, select.POLLIN)
    while True:
        for descriptor, _ in watched.poll():
            if descriptor == woken.fileno():
                woken.recv(4096)
                _reap(reports)
                continue
            data, descriptors, *_ = socket.recv_fds(connection, LARGEST, 3)
            if not data:
                for pid in reports:
                    os.kill(pid, signal.SIGKILL)
                sys.exit()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.dup2(descriptors[0], 1)
                os.dup2(descriptors[1], 2)
                for end in (connection, woken, wake):
                    end.detach()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))
                return json.loads(data)
            *outputs, reports[pid] = descriptors
            for output in outputs:
                os.close(output)
            connection.send(str(pid).encode())


def _reap(reports):
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pid, status = ended
            report = reports.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(report)


def _become(request):
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    module, *arguments = request["arguments"]
    sys.path[0] = request["cwd"]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _load()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
