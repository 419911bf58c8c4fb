"""What keeps secrets that are in memory out of files: no core file is written of this process.

A core file has every password in it. RLIMIT_CORE stops the kernel from writing one; it does not stop a handler that
`kernel.core_pattern` pipes it to, as systemd-coredump (core(5)), which being undumpable does (PR_SET_DUMPABLE(2const)).
The price: debuggers of the same user can't attach; root's can.
"""

import ctypes
import resource
import sys
from typing import Final

PR_SET_DUMPABLE: Final = 4


def no_core_files() -> None:
    """See to it that this process leaves no core file behind, however it ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
