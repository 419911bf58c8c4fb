"""`make home-assistant`: the packages of Home Assistant against what our tests have of them.

Gets the oldest version that we support and the newest that we have seen from PyPI, reads their tables of device classes
without installing them, and runs their rule of sums (`reset_detected`) over random series beside `tests/kit/sums.py`.
"""

import ast
import json
import random
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.console import Console

from tests.bridges.mqtt.test_home_assistant_versions import NEWEST, OLDEST
from tests.home_assistant.rules import read
from tests.kit.process import ROOT
from tests.kit.sums import summed

RULES = ROOT / "tests" / "bridges" / "mqtt" / "home_assistant_rules.json"
RECORDER = "homeassistant/components/sensor/recorder.py"
SERIES = 2000

out = Console(highlight=False, soft_wrap=True)


def wheel(version, directory):
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--ignore-requires-python", "-d", directory,
         f"homeassistant=={version}"],
        check=True,
    )  # fmt: skip
    return next(Path(directory).glob("*.whl"))


def reset_rule(package):
    """Return Home Assistant's own `reset_detected`, as a function of the new value and the one before."""
    with zipfile.ZipFile(package) as it:
        source = it.read(RECORDER).decode()
    # The rest may be of a newer Python.
    body = re.search(r"^def reset_detected\(.*?(?=^\S(?<!\)))", source, re.DOTALL | re.MULTILINE)
    found = ast.parse(body[0]).body
    for node in (*found[0].args.args, found[0]):
        node.annotation = node.returns = None
    names = {"warn_dip": lambda *_: None, "warn_negative": lambda *_: None, "HomeAssistantError": ValueError}
    exec(compile(ast.Module(found, []), RECORDER, "exec", dont_inherit=True), names)
    return lambda new, before: names["reset_detected"](None, "", new, before, None)


def theirs(states, is_reset):
    """The sum as `compile_statistics` makes it of a sensor it has not known before, by their rule of resets."""
    total, start, last = 0.0, None, None
    for state in states:
        if start is None:
            start = last = state
            continue
        try:
            reset = is_reset(state, last)
        except ValueError:
            continue
        if reset:
            total, start = total + last - start, 0.0
        last = state
    return total + last - start


def main():
    found, problems = json.loads(RULES.read_text()), 0
    for version in (OLDEST, NEWEST):
        with tempfile.TemporaryDirectory() as directory:
            package = wheel(version, directory)
            tables = read(package)
            same = tables == found[version]
            is_reset = reset_rule(package)
        dice = random.Random(1)
        wrong = 0
        for _ in range(SERIES):
            states = [dice.choice([0.0, -1.0, 1.0, 8.9, 9.0, 9.1, 10.0, 40.0, dice.uniform(0, 50)]) for _ in range(20)]
            states[0] = abs(states[0])
            wrong += abs(theirs(states, is_reset) - summed(states)) > 1e-9
        out.print(
            f"{version}: tables {'as written down' if same else 'DIFFER'}; sums of {SERIES} series, {wrong} differ"
        )
        problems += wrong + (not same)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
