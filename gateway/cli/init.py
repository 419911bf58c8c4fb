"""`sems-gateway init`: asks what a configuration needs, tries each answer, and writes it with comments."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final, NoReturn

import msgspec
import typer
import yaml

from gateway.api.registry import installed
from gateway.bridges.open_api.settings import OpenApiSettings
from gateway.cli import doctor
from gateway.cli.loop import log_errors_only, run_on_loop
from gateway.cli.output import EXIT_CONFIG, EXIT_FAILED, err, fail, out
from gateway.cli.target import Target
from gateway.config.document import ConfigError, nearest
from gateway.config.host import split
from gateway.core import files
from gateway.core.points import SETPOINTS
from gateway.core.probe import Mark
from gateway.run.own_settings import GatewaySettings
from gateway.run.schema import json_schema
from gateway.run.settings import Config

ACCOUNTS: Final = {
    "classic": "a SEMS organisation account with the Open API switched on",
    "developer": "client id and secret of the developer platform",
    "realtime": "a third-party supplier's licence for the Real-Time Data API (no control)",
}
REGIONS: Final = ("eu", "au", "us", "hk", "cn")
ANSWERS: Final = {"y": True, "yes": True, "n": False, "no": False}
MAX_PORT: Final = 65535
LOOPBACK: Final = "127.0.0.1"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - asked for
COMMENT_COLUMN: Final = 42
SHOWN: Final = frozenset({"dns", "connection", "tls", "clock", "bridge", "devices", "broker", "port"})
"""What is said of an answer that was tried; of the rest what is wrong."""


class Section(msgspec.Struct):
    """A bridge as it will stand in the file."""

    name: str
    type: str
    settings: dict[str, Any]
    secrets: dict[str, str] = {}
    """Setting → what only its own file has."""


class Asker:
    """Takes what the command line says, or asks for it; without a terminal the default counts."""

    def __init__(self, *, may_ask: bool) -> None:
        self.may_ask = may_ask

    def text(
        self,
        flag: str,
        given: str | None,
        question: str,
        default: str | None = None,
        wrong: Callable[[str], str] = lambda _: "",
    ) -> str:
        """Return a text of which nothing is `wrong`. A wrong answer is asked for again.

        Ends the command where there is none, or the command line has a wrong one.
        """
        if given is not None:
            if said := wrong(given):
                fail(said, EXIT_CONFIG)
            return given
        if self.may_ask:
            while True:
                answer = str(typer.prompt(question, default=default, show_default=bool(default))).strip()
                if not (said := wrong(answer)):
                    return answer
                err.print(said, style="red", markup=False)
        if default is None:
            fail(f"nobody can be asked here; say {flag}", EXIT_CONFIG)
        return default

    def secret(self, flag: str, given: Path | None, question: str) -> str:
        """Return a secret: from a file, or typed unseen."""
        if given is not None:
            try:
                secret = given.read_text("utf-8").rstrip("\r\n")
            except OSError as error:
                fail(f"{flag}: {files.why_not(given, error)}", EXIT_CONFIG)
            except UnicodeDecodeError:
                fail(f"{flag}: {given} is not UTF-8; save it as that", EXIT_CONFIG)
            if not secret or not secret.isprintable():
                fail(f"{flag}: {given} has to have one line, the secret, and nothing else", EXIT_CONFIG)
            return secret
        if not self.may_ask:
            fail(f"nobody can be asked here; say {flag} FILE", EXIT_CONFIG)
        return str(typer.prompt(question, hide_input=True))

    def yes(self, given: object, question: str) -> bool:
        """Return whether a part is wanted: where the command line says something of it, or somebody says so."""
        return given is not None if given is not None or not self.may_ask else self.agrees(question)

    def agrees(self, question: str) -> bool:
        """Return what somebody answers: yes, where nothing is typed."""
        while True:
            answer = str(typer.prompt(f"{question} [Y/n]", default="y", show_default=False)).strip().lower()
            if answer in ANSWERS:
                return ANSWERS[answer]
            err.print("answer y for yes, or n for no", style="red", markup=False)


class Draft:
    """The file as it grows, and what was found out about it."""

    def __init__(self, file: Path, asker: Asker, tried_in: Path, *, may_try: bool) -> None:
        self.file = file
        self._tried_in = tried_in
        self.sections: list[Section] = []
        self.setpoints: list[str] = []
        self._asker = asker
        self._may_try = may_try

    def settle(self, ask: Callable[[bool], Section]) -> None:
        """Add a bridge once it works, or is wanted all the same. `ask` is told whether it is for the first time."""
        first = True
        while True:
            section = ask(first)
            ordered = self._in_order(section)
            if ordered and (not self._may_try or self._works(section)):
                break
            if not self._asker.may_ask:
                advice = ", or say --no-try" if ordered else ""
                fail(f"no configuration was written; put it right{advice}", EXIT_FAILED if ordered else EXIT_CONFIG)
            if ordered and not self._asker.agrees("Answer again? (no: write it as it is)"):
                break
            first = False
        self.sections.append(section)

    def _in_order(self, section: Section) -> bool:
        """Say what `check` would, of one bridge alone."""
        with self._trial(section) as trial:
            try:
                Config.load(trial, installed())
            except ConfigError as error:
                for problem in error.problems:
                    err.print(f"{problem.where}: {problem.text}", style="red", markup=False)
                return False
        return True

    @contextmanager
    def _trial(self, section: Section) -> Iterator[Path]:
        """Give a file with one bridge alone, beside the one that will be, so that paths and the one login count.

        Its secrets are in this process's environment: killed, it leaves none behind.
        """
        trial = self.file.with_name(f".{self.file.name}.trial")
        os.environ.update({_variable(key): secret for key, secret in section.secrets.items()})
        try:
            _write(trial, self.text([section], for_trial=True))
            yield trial
        finally:
            trial.unlink(missing_ok=True)

    def _works(self, section: Section) -> bool:
        """Try one bridge alone, and show what came of it."""
        with self._trial(section) as trial:
            lines = run_on_loop(doctor.examine(Target.of(trial, None)))
        lines = [line for line in lines if line.about in SHOWN or line.mark is Mark.WRONG]
        doctor.show(out, lines, summary=False)
        return not doctor.wrong(lines)

    def text(self, sections: Sequence[Section], *, for_trial: bool = False) -> str:
        """Return the whole file."""
        rows = [
            f"# yaml-language-server: $schema={self._beside('schema.json').name}",
            "# Written by `sems-gateway init`. All settings: docs/configuration.md. After a change: sems-gateway check",
            "",
        ]
        if for_trial and not self._data_dir().exists():
            rows.append(f"gateway: {_scalar({'data_dir': str(self._tried_in)})}")
        rows.append("bridges:")
        for section in sections:
            model = installed().settings(section.type)
            rows += [f"  {section.name}:", f"    type: {section.type}"]
            for key, value in section.settings.items():
                rows.append(_commented(f"    {key}: {_scalar(value)}", model.model_fields[key].description))
            for key in section.secrets:
                place = {"env": _variable(key)} if for_trial else {"file": self.secret_file(section, key).name}
                rows.append(f"    {key}: {_scalar(place)}")
            rows.append("")
        return "\n".join([*rows, *self._control()]) + "\n"

    def _control(self) -> Iterable[str]:
        if not self.setpoints:
            return ["control:", _commented("  enabled: false", "true: values may be set, by rules under `allow`")]
        rule = [
            _commented('    - devices: ["*"]', "serial numbers or patterns"),
            f"      setpoints: {_scalar(self.setpoints)}",
        ]
        return ["control:", "  enabled: true", "  allow:", *rule]

    def secret_file(self, section: Section, key: str) -> Path:
        """Return where a secret will stand."""
        return self._beside(f"{section.name}-{key}")

    def _data_dir(self) -> Path:
        return Path(self.file.parent, GatewaySettings.model_fields["data_dir"].default)

    def keep_what_was_tried(self) -> None:
        """Move what the trials left to where the gateway looks: SEMS's token, so that it need not log in again."""
        # Without, it logs in: no reason to fail.
        with suppress(OSError):
            if self._tried_in.exists() and not self._data_dir().exists():
                shutil.move(self._tried_in, self._data_dir())

    def _beside(self, end: str) -> Path:
        return self.file.with_name(f"{self.file.stem}.{end}")

    def write(self, *, force: bool) -> list[Path]:
        """Write everything, the configuration last, or nothing; returns what was written."""
        made = {self.secret_file(one, key): secret for one in self.sections for key, secret in one.secrets.items()}
        made[self._beside("schema.json")] = json.dumps(json_schema(installed()), indent=1) + "\n"
        made[self.file] = self.text(self.sections)
        if not force and (taken := [path for path in made if path.exists()]):
            fail(f"{taken[0]} is there already; name another file, or say --force", EXIT_CONFIG)
        fresh: list[Path] = []
        for path, text in made.items():
            there = path.exists()
            try:
                files.replace(path, text.encode())
            except OSError as error:
                for left in (*fresh, path.with_name(f"{path.name}.new")):
                    left.unlink(missing_ok=True)
                _fail_to_write(path, error)
            fresh += [] if there else [path]
        return list(made)


def _write(path: Path, text: str) -> None:
    """Write a file that is ours alone."""
    try:
        files.replace(path, text.encode())
    except OSError as error:
        _fail_to_write(path, error)


def _fail_to_write(path: Path, error: OSError) -> NoReturn:
    what = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "name another place"
    fail(f"{path} can't be written ({error.strerror}); {what}", EXIT_CONFIG)


def _variable(key: str) -> str:
    """Return in which variable a trial finds a secret."""
    return f"SEMS_INIT_{key.upper()}"


def _scalar(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000).removesuffix("...\n").strip()


def _commented(row: str, comment: str | None) -> str:
    return f"{row:<{COMMENT_COLUMN}}  # {comment}" if comment else row


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    host, port = split(text)
    return host, default if port is None else port


def init(
    file: Annotated[Path, typer.Argument(metavar="[CONFIG]", help="the file to write")] = Path("config.yaml"),
    account_kind: Annotated[
        str | None, typer.Option("--kind", metavar="|".join(ACCOUNTS), help="which access to SEMS you have")
    ] = None,
    account: Annotated[str | None, typer.Option(help="classic: the account; else: the client id")] = None,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="a file with its password, or client secret")
    ] = None,
    region: Annotated[str | None, typer.Option(help="developer, realtime: eu, au, us, hk or cn")] = None,
    url: Annotated[str | None, typer.Option(help="the cloud's host, where it is not the region's")] = None,
    whitelist: Annotated[str | None, typer.Option(help='realtime: serial numbers with commas between, or "*"')] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST[:PORT]", help="the broker; left out with --yes: none")
    ] = None,
    mqtt_username: Annotated[str | None, typer.Option(help="as the broker knows the gateway")] = None,
    mqtt_password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="a file with its password")] = None,
    home_assistant: Annotated[
        bool, typer.Option("--home-assistant", help="let Home Assistant find the devices")
    ] = False,
    modbus: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="serve Modbus TCP there; left out with --yes: not")
    ] = None,
    control: Annotated[
        list[str] | None, typer.Option(metavar="SETPOINT", help="may be set by MQTT, Modbus, …; may be repeated")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="ask nothing; what is left out has its default")] = False,
    no_try: Annotated[bool, typer.Option("--no-try", help="connect to nothing")] = False,
    force: Annotated[bool, typer.Option("--force", help="write over a file that is there")] = False,
) -> None:
    """`sems-gateway init`."""
    if file.exists() and not force:
        fail(f"{file} is there already; name another file, or say --force", EXIT_CONFIG)
    if mqtt is None and yes and (mqtt_username or mqtt_password_file or home_assistant):
        fail("say --mqtt HOST too: what is said of the broker has no place without", EXIT_CONFIG)
    os.umask(0o077)
    log_errors_only()
    asker = Asker(may_ask=sys.stdin.isatty() and not yes)
    with TemporaryDirectory(prefix="sems-init-") as trials:
        draft = Draft(file.absolute(), asker, Path(trials) / "data", may_try=not no_try)
        kind = _kind(asker, account_kind)
        draft.settle(
            lambda first: _cloud(
                asker, kind, account if first else None, password_file if first else None, region, url, whitelist
            )
        )
        if asker.yes(mqtt, "MQTT, for Home Assistant, Node-RED and others?"):
            draft.settle(
                lambda first: _broker(
                    asker, mqtt if first else None, mqtt_username, mqtt_password_file if first else None, home_assistant
                )
            )
        if asker.yes(modbus, "Modbus TCP, for SCADA and PLCs?"):
            draft.settle(lambda first: _modbus(asker, modbus if first else None))
        draft.setpoints = _setpoints(asker, control, kind)
        written = draft.write(force=force)
        draft.keep_what_was_tried()
    for path in written:
        out.print(f"written: {path}", markup=False)
    out.print(f"\nNext:  sems-gateway run {quote(str(file))}", markup=False)


def _kind(asker: Asker, given: str | None) -> str:
    if given is None and asker.may_ask:
        for name, words in ACCOUNTS.items():
            out.print(f"  {name:10} {words}", markup=False)
        err.print("An ordinary SEMS login opens none of them; README says how one gets in.", style="dim", markup=False)

    def wrong(kind: str) -> str:
        return "" if kind in ACCOUNTS else f"there is no access of the kind {kind!r}; {nearest(kind, ACCOUNTS)}"

    question = f"Which access to SEMS do you have? ({', '.join(ACCOUNTS)})"
    return asker.text("--kind", given, question, "classic", wrong)


def _cloud(
    asker: Asker,
    kind: str,
    account: str | None,
    password_file: Path | None,
    region: str | None,
    url: str | None,
    whitelist: str | None,
) -> Section:
    if kind == "classic":
        settings: dict[str, Any] = {"account": asker.text("--account", account, "SEMS account")}
        secrets = {"password": asker.secret("--password-file", password_file, "Its password")}
        usual = str(OpenApiSettings.model_fields["url"].default)
        if (host := asker.text("--url", url, "The cloud's host", usual)) != usual:
            url = host
    else:
        settings = {"client_id": asker.text("--account", account, "Client id")}
        secrets = {"client_secret": asker.secret("--password-file", password_file, "Client secret")}
    if kind == "developer":
        settings = {"platform": "developer", **settings}
    if kind != "classic" and url is None:
        settings["region"] = asker.text("--region", region, f"Region ({', '.join(REGIONS)})", "eu", _no_region)
    if url is not None:
        settings["url"] = url
    if kind == "realtime":
        numbers = asker.text("--whitelist", whitelist, "Whitelisted serial numbers, with commas between, or *", "*")
        settings["whitelist"] = "*" if numbers == "*" else _listed(numbers)
    return Section("sems", "realtime" if kind == "realtime" else "open_api", settings, secrets)


def _no_region(text: str) -> str:
    return "" if text in REGIONS else f"there is no region {text!r}; {nearest(text, REGIONS)}"


def _broker(
    asker: Asker, given: str | None, username: str | None, password_file: Path | None, home_assistant: bool
) -> Section:
    host, port = _host_and_port(asker.text("--mqtt", given, "Broker", LOOPBACK), 1883)
    settings: dict[str, Any] = {"host": host, "port": port}
    secrets = {}
    name = asker.text("--mqtt-username", username, "User at the broker (nothing: none)", "")
    if name:
        settings["username"] = name
        secrets["password"] = asker.secret("--mqtt-password-file", password_file, "Its password")
    if home_assistant or (asker.may_ask and asker.agrees("Let Home Assistant find the devices?")):
        settings["home_assistant"] = True
    return Section("mqtt", "mqtt", settings, secrets)


def _modbus(asker: Asker, given: str | None) -> Section:
    if given is None and asker.may_ask:
        others = asker.agrees("Reached from other machines?")
        given = f"{EVERYWHERE if others else LOOPBACK}:{asker.text('--modbus', None, 'Port', '5020', _no_port)}"
    text = given or "5020"
    host, port = (LOOPBACK, int(text)) if text.isascii() and text.isdigit() else _host_and_port(text, 5020)
    return Section("modbus", "modbus", {"host": host or LOOPBACK, "port": port})


def _no_port(text: str) -> str:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_PORT:
        return ""
    return f"{text!r} is no port; write a number from 1 to {MAX_PORT}"


def _setpoints(asker: Asker, given: list[str] | None, kind: str) -> list[str]:
    if kind == "realtime":
        return []
    if given is None:
        if asker.may_ask:
            out.print(f"Values that can be set: {', '.join(SETPOINTS)}", markup=False)
        question = "Which may be set? (with commas between; nothing: none)"
        answer = asker.text("--control", None, question, "", lambda text: _no_setpoint(_listed(text)))
        return _listed(answer)
    if said := _no_setpoint(given):
        fail(said, EXIT_CONFIG)
    return given


def _no_setpoint(names: Iterable[str]) -> str:
    unknown = (name for name in names if name != "*" and name not in SETPOINTS)
    return next((f"there is no setpoint {name!r}; {nearest(name, SETPOINTS)}" for name in unknown), "")


def _listed(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
