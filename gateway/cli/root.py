"""The table of commands, and what is done before any of them.

Of a command only its name and its help are here. Its module is imported once it is used: all of them together take
seconds on a small machine.
"""

import sys
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

import gateway
from gateway.cli.output import EXIT_CONFIG, err, out
from gateway.core.text import MAX_HALT_REASON, MAX_LINE, escaped, plain
from gateway.http import descriptors
from gateway.run.hardening import no_core_files
from gateway.terminal.console import guard

FREE_TEXT: Final = ("--reason",)
"""Options whose value is only kept and shown, each a reason."""
SHOWN: Final = 80
"""Characters of a word of the command line that an error repeats."""

COMMANDS: Final = {
    "init": "Write a configuration: ask what it needs, and try each answer; or take all of it from options.",
    "run": "Run the gateway until SIGINT or SIGTERM.",
    "check": "Validate a configuration: file, line, what is wrong, what to write instead.",
    "reload": (
        "Have the running gateway read its configuration again: bridges whose settings have changed are restarted, no "
        "others; where something is wrong, nothing changes. Exits with 2 then."
    ),
    "schema": "Print the JSON Schema of a configuration: with it an editor completes, explains and checks it.",
    "devices": "List plants and devices: of the running gateway, or else fresh from SEMS.",
    "doctor": (
        "Say how the running gateway does, what it doubts of its data, and what to do; where none runs, try all that "
        "it would need: clock, DNS, TLS, login, broker, Kafka, ports. Exits with 1 where something is wrong."
    ),
    "plugins": (
        "List bridges, register maps and payload formats that are installed, whence, and what keeps one from being "
        "used. Exits with 1 where one of them can't be used."
    ),
    "registers": "Print the Modbus registers that are served: of each device, as its unit has them.",
    "units": "List which device has which Modbus unit, since when, and whether it is known now; or free a unit.",
    "plan": "Print the hour's plan of calls to SEMS: which interfaces, how often, and how old data get.",
    "send": "Set a setpoint through the running gateway, and show each step.",
    "explain": (
        "Say what would become of a command and which rule decides; nothing is sent. Exits with 1 where it is refused."
    ),
    "halt": (
        "Stop all control: no new command is taken, none that waits leaves; dead-man's timers go on. Outlives restarts."
    ),
    "resume": "Let commands in again after a halt.",
    "backup": (
        "Write configuration and data_dir into one file, also while the gateway runs. Passwords and keys stay out "
        "unless asked for."
    ),
    "restore": (
        "Put a backup in place, here or on another machine. None of its commands and timers is carried out; control "
        "stays halted until `resume`."
    ),
    "interfaces": "Print the interfaces of SEMS, their fields, and how far each line can be relied on.",
    "history": (
        "Write a device's past into a file, within the call budget; the same command goes on where it was stopped."
    ),
    "learn": (
        "Ask SEMS all that can be read, and say which lines of the catalogue are so: a report, and overrides to use."
    ),
    "audit": "Print who commanded what and what became of it, and prove that nothing of it was changed or removed.",
    "prove": (
        "Write what a fleet was told, what it gave each minute and what came of it, with the audit's hashes; or check "
        "such a file. Exits with 1 where it is not as the audit has it."
    ),
    "simulate": "Run a SEMS cloud to test against, with both generations of the Open API and plants that obey.",
    "demo": "See it work: simulator, MQTT broker, Modbus server and gateway, all on this machine.",
}
"""Command → its help. It is the function of that name in the module of that name."""
ELSEWHERE: Final = {"resume": "halt", "restore": "backup"}
"""Command → its module, where that has another name."""


class Commands(TyperGroup):
    """Loads a command once it is to run, or is asked for its own help; a list of all needs none of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See `TyperGroup.resolve_command`."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else loaded(name), rest


def loaded(name: str) -> Any:
    """Return a command with its options."""
    _leave_out()
    module = import_module(f"gateway.cli.{ELSEWHERE.get(name, name)}")
    alone = typer.Typer(add_completion=False)
    alone.command(name, help=COMMANDS[name])(getattr(module, name))
    return typer.main.get_command(alone)


def _leave_out() -> None:
    """Keep libraries from loading what nothing here uses: an eighth of what `check` takes, on a small machine 0.1 s.

    That is httpx's own command line, and rich's tracebacks in structlog, whose exceptions are text before it has them.
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("httpx._main", None)
    if "rich.traceback" not in modules:
        modules["rich.traceback"] = None
        import_module("structlog")
        del modules["rich.traceback"]


app = typer.Typer(
    name="sems-gateway",
    cls=Commands,
    help="GoodWe SEMS data in MQTT topics and Modbus TCP registers, and setpoints back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        out.print(f"sems-gateway {gateway.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _not_loaded() -> None:
    """Stand in the list for a command that is not loaded."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(_not_loaded)


def main() -> None:
    """Run the command line."""
    no_core_files()
    descriptors.raise_limit()
    guard()
    sys.argv[1:] = _clean(sys.argv[1:])
    for word in sys.argv[1:]:
        # What reads the command line repeats it in its errors, and has a console of its own.
        if escaped(word) != word:
            what = "control characters in it" if len(word) <= MAX_LINE else f"{len(word)} characters"
            err.print(f"nothing takes a word with {what}: {escaped(word, SHOWN)}", style="red", markup=False)
            sys.exit(EXIT_CONFIG)
    for before, word in zip(sys.argv, sys.argv[1:], strict=False):
        option, equals, value = word.partition("=")
        _check_number(*((option, value) if equals else (before, word)))
    app()


def _check_number(option: str, word: str) -> None:
    """End where an option is given what only Python takes for a number: `5_0`, or the digits of another script."""
    if not option.startswith("--") or option in FREE_TEXT or (word.isascii() and "_" not in word):
        return
    try:
        float(word)
    except ValueError:
        return
    err.print(f"{option} takes no such number: {word}; write digits 0 to 9", style="red", markup=False)
    sys.exit(EXIT_CONFIG)


def _clean(words: list[str]) -> list[str]:
    """Return the command line with free text made plain: a halt must not fail by its wording."""
    cleaned = list(words)
    for at, word in enumerate(words):
        option, equals, text = word.partition("=")
        if option in FREE_TEXT and equals:
            cleaned[at] = f"{option}={plain(text, MAX_HALT_REASON)}"
        elif at and words[at - 1] in FREE_TEXT:
            cleaned[at] = plain(word, MAX_HALT_REASON)
    return cleaned
