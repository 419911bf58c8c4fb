"""A wall clock that can be set for one program alone: a few lines of C between it and the C library.

libfaketime would do too, but slows the gateway down so much that its time-outs run out.
"""

import struct
import subprocess
from pathlib import Path

from tests.kit.mosquitto import need

SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """`environment` is for the program; `jump` sets its wall clock, `offset` seconds from the machine's."""

    def __init__(self, directory):
        library = Path(directory) / "wall-clock.so"
        self._file = Path(directory) / "wall-clock"
        command = [need("cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)
        self.jump(0)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(self._file)}

    def jump(self, offset):
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", offset))
