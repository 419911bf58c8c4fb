"""What a power cut on a bad card leaves of a file, and a data_dir of every kind of file to try it on."""

import random
import shutil

from tests.kit.process import eventually
from tests.reliability.rig import Rig

MORE = """\
  nodes: {type: mqtt, host: 127.0.0.1, port: %(mqtt)d, payload: sparkplug, sparkplug: {group: plant, node: box}}
  push: {type: push, port: 0, secret: a-secret-of-some-length}
"""
TIMER = ("9020KDTU219W0001", "export_limit")
"""Has a dead-man's timer of an hour in the sound data_dir."""
LANE = ("9020KETT221W0001", "export_limit")
LOCKS = (".lock", "lock", "control.sock")
JOURNAL = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "journal.sqlite.head")
SMALL = 4096


def empty(file, before, dice):
    del before, dice
    file.write_bytes(b"")


def cut(file, before, dice):
    del before
    content = file.read_bytes()
    file.write_bytes(content[: dice.randrange(len(content))] if content else b"")


def zeroed_head(file, before, dice):
    del before
    content = file.read_bytes()
    size = min(SMALL, dice.randrange(1, len(content))) if len(content) > 1 else len(content)
    file.write_bytes(bytes(size) + content[size:])


def first_page_zeroed(file, before, dice):
    del before, dice
    content = file.read_bytes()
    file.write_bytes(bytes(min(SMALL, len(content))) + content[SMALL:])


def zeroed_tail(file, before, dice):
    del before
    content = file.read_bytes()
    at = dice.randrange(len(content)) if content else 0
    file.write_bytes(content[:at] + bytes(len(content) - at))


def noise(file, before, dice):
    del before
    content = bytearray(file.read_bytes())
    at = dice.randrange(len(content)) if content else 0
    content[at : at + 64] = dice.randbytes(len(content[at : at + 64]))
    file.write_bytes(content)


def older(file, before, dice):
    del dice
    if (before / file.name).exists():
        shutil.copyfile(before / file.name, file)
    else:
        file.unlink()


def gone(file, before, dice):
    del before, dice
    file.unlink()


def left_over(file, before, dice):
    """A crash, or another program, left files beside it that nobody reads any more."""
    del before
    for suffix in (".new", ".old.new", ".salvaged", ".rescued", ".repaired", ".damaged"):
        file.with_name(file.name + suffix).write_bytes(dice.randbytes(40))


DAMAGES = {
    each.__name__: each
    for each in (empty, cut, zeroed_head, first_page_zeroed, zeroed_tail, noise, older, gone, left_over)
}


class Box(Rig):
    """A gateway with everything that keeps files, and a sound data_dir of it: `whole`, and `before`, an older copy."""

    def __init__(self, directory, **options):
        super().__init__(directory, log="info", **options)
        text = self.config.read_text().replace(
            "session_expiry: 3600, ttl: 30}",
            "session_expiry: 3600, ttl: 30, home_assistant: true, store: {enabled: true}}",
        )
        self.config.write_text(text.replace("control:\n", MORE % {"mqtt": self.mqtt} + "control:\n", 1))
        self.whole, self.before = self.directory / "whole", self.directory / "before"

    def start(self):
        """As a person would: nothing is taken away first."""
        kept, self.data_dir = self.data_dir, self.directory / "nowhere"
        try:
            return super().start()
        finally:
            self.data_dir = kept

    def make_whole(self):
        """Live twice: what the first life left is `before`, what the second had when it was killed is `whole`."""
        for value, copy in ((1.0, self.before), (3.0, self.whole)):
            self.start()
            self.wait_until_ready()
            eventually(lambda value=value: self.succeeds(TIMER, value, revert_after=3600, revert_value=2.0))
            eventually(self.gateway_has_written)
            if copy is self.before:
                self.stop()
            else:
                self.kill()
            shutil.copytree(self.data_dir, copy, ignore=shutil.ignore_patterns("*.sock", "control*"))

    def gateway_has_written(self):
        names = {file.name for file in self.data_dir.iterdir()}
        return {"devices.json", "modbus-units.json", "mqtt-retained.json", "sems-gaps.jsonl"} <= names

    def files(self):
        """Return the names of all files that can be damaged."""
        return sorted(file.name for file in self.whole.iterdir() if not file.name.endswith(LOCKS))

    def begin(self, damages, dice=random, base=None):
        """Lay out a sound data_dir, `whole` or `before`, with these damages, name → damage; start a gateway on it."""
        shutil.rmtree(self.data_dir)
        shutil.copytree(base or self.whole, self.data_dir)
        for name, damage in damages.items():
            DAMAGES[damage](self.data_dir / name, self.before, dice)
        self.start()
        self.wait_until_ready()

    def succeeds(self, lane, value, **more):
        """Ask for a setpoint; return whether it succeeded in the end."""
        if self.set(lane, value, **more).status_code >= 300:
            return False
        return eventually(lambda: self.ended(lane, value)) == "succeeded"

    def lines_about(self, name):
        """Return what the gateway said of a file that is worth a look, beside that it halted control for it."""
        said = [line for line in self.gateway.lines if str(self.data_dir / name) in line and "control is " not in line]
        return [line for line in said if '"warning"' in line or '"error"' in line]
