"""A wall clock that can be set for one program alone: a few lines of C between it and the C library.

libfaketime would do too, but slows the gateway down so much that its time-outs run out.
"""

import struct
import subprocess
from pathlib import Path
from uuid import uuid4

from tests.kit.mosquitto import need

SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """`environment` is for the program.

    `jump` sets its wall clock, so many seconds from the machine's; `sleep` has both wall and boot clock go on by so
    many while the monotonic one stands; `reboot` is for a program that is started anew: another start of the machine.
    """

    def __init__(self, directory):
        library = Path(directory) / "wall-clock.so"
        self._file = Path(directory) / "wall-clock"
        self._boot_id = Path(directory) / "boot-id"
        command = [need("cc"), "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True)
        self._wall = self._boot = 0
        self._write()
        self.reboot()
        self.environment = {
            "LD_PRELOAD": str(library),
            "WALL_CLOCK_OFFSET": str(self._file),
            "BOOT_ID_FILE": str(self._boot_id),
        }

    def jump(self, offset):
        self._wall = offset
        self._write()

    def sleep(self, seconds):
        self._wall += seconds
        self._boot += seconds
        self._write()

    def reboot(self):
        self._boot_id.write_text(f"{uuid4()}\n")

    def _write(self):
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=qq", self._wall, self._boot))
