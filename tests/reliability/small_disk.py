"""A disk of a few megabytes: a tmpfs of our own, mounted as root or in a user namespace that a child holds open."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.process import eventually

HOLD = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec sleep infinity'


class SmallDisk:
    """`inside` is its path for who is started with `prefix`, `outside` for everybody."""

    def __init__(self, inside, outside, prefix=()):
        self.inside, self.outside, self.prefix = inside, outside, prefix
        self._ballast = outside / "ballast"

    def fill(self):
        """Leave not a single byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 16, 1):
                while True:
                    try:
                        file.write(b"\0" * size)
                    except OSError:
                        break
        assert os.statvfs(self.outside).f_bavail == 0

    def empty(self):
        """Give the space back."""
        self._ballast.unlink()


@contextmanager
def small_disk(directory, size="8m"):
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=False, capture_output=True
    )
    if mounted.returncode == 0:
        try:
            yield SmallDisk(directory, directory)
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)
        return
    with _namespace(directory, size) as holder:
        inside = Path(f"/proc/{holder.pid}/root{directory}")
        yield SmallDisk(directory, inside, ("nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials"))


@contextmanager
def _namespace(directory, size):
    command = ["unshare", "-Urm", "sh", "-c", HOLD, "sh", size, str(directory)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        if holder.stdout.readline() != "mounted\n":
            told = f"no tmpfs can be mounted here, neither as root nor in a user namespace ({holder.stderr.read()})"
            pytest.fail(told) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(told)
        eventually(lambda: os.path.ismount(f"/proc/{holder.pid}/root{directory}"))
        yield holder
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        holder.stderr.close()
