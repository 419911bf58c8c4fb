"""The gateway with some of its constants shorter, for tests that would wait minutes for what is meant to take them.

`python -m tests.kit.hasty gateway.sems.doubts.AGAIN=6 -- run config.yaml`
"""

import importlib
import runpy
import sys


def command(constants, *arguments):
    """The command line: names of constants and what they are here; what `sems-gateway` gets."""
    given = [f"{name}={value}" for name, value in constants.items()]
    return [sys.executable, "-m", "tests.kit.hasty", *given, "--", *arguments]


def main():
    """Set the constants, and be the gateway."""
    end = sys.argv.index("--")
    for each in sys.argv[1:end]:
        name, value = each.split("=")
        module, _, constant = name.rpartition(".")
        found = importlib.import_module(module)
        assert isinstance(getattr(found, constant), float), f"{module} has no {constant}"
        setattr(found, constant, float(value))
    del sys.argv[1 : end + 1]
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
