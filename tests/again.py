"""`make test`: all tests beside each other, and the few that failed once more, alone.

Some 7,000 tests start thousands of programs on two cores. What holds alone and fails beside the others is told by name,
and is to be mended; it does not hold up a change that has nothing to do with it. More than a few are no accident.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MAX_AGAIN = 3
"""Tests that are run again."""
LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def run(*arguments):
    return subprocess.call([sys.executable, "-m", "pytest", *arguments])


def say(text):
    sys.stdout.write(f"\n{text}\n\n")
    sys.stdout.flush()


def main(arguments):
    """Return the exit code of pytest."""
    LAST_FAILED.unlink(missing_ok=True)
    code = run(*arguments)
    if code != pytest.ExitCode.TESTS_FAILED or not LAST_FAILED.exists():
        return code
    failed = sorted(json.loads(LAST_FAILED.read_text()))
    if len(failed) > MAX_AGAIN:
        return code
    say(f"{len(failed)} failed beside the others; once more, alone:")
    if code := run("-q", "--tb=short", "-p", "no:cacheprovider", *failed):
        return code
    say("\n  ".join(["These failed beside the others and passed alone. Please mend them:", *failed]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
