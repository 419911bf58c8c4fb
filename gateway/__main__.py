"""`python -m gateway` is `sems-gateway`."""

import signal
import sys

INTERRUPTED = 130
"""128 and SIGINT, as a shell has it."""


def main() -> None:
    """Run the command line. Who stops it while it is still being loaded sees no traceback."""
    if sys.argv[1:2] == ["run"] and not sys.stderr.isatty():
        # Also while it is loaded; then `gateway.run.stopping` waits for it, and takes a terminal's end for a stop.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        from gateway.cli import main as run  # noqa: PLC0415 - loading takes a second, and may be interrupted

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
