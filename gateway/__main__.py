"""`python -m gateway` is `sems-gateway`."""

import gc
import signal
import sys

INTERRUPTED = 130
"""128 and SIGINT, as a shell has it."""
NEW_OBJECTS = 100_000
"""Containers until a garbage collection looks at the new ones. Python's 700 cost a command a fifth of its time: nearly
all that it loads stays, so each collection looks at more and finds nothing. A gateway and a simulator set their own."""


def main() -> None:
    """Run the command line. Who stops it while it is still being loaded sees no traceback."""
    if sys.argv[1:2] == ["run"] and not sys.stderr.isatty():
        # Also while it is loaded; then `gateway.run.stopping` waits for it, and takes a terminal's end for a stop.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(NEW_OBJECTS)
    try:
        from gateway.cli import main as run  # noqa: PLC0415 - loading takes a second, and may be interrupted

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        # Python collects garbage as it ends, which looks at all that was loaded: another tenth of a command's time.
        gc.freeze()


if __name__ == "__main__":
    main()
