"""A lock: a file that pip installs from, in which every entry has its hashes."""

import re

from packaging.requirements import Requirement

ENTRY = re.compile(
    r"^(?P<requirement>[a-z0-9-]+==[^\\\n]+?) \\\n"
    r"(?P<hashes>(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    r"(?P<via>(?:    #.*\n)*)",
    re.MULTILINE,
)


class Lock:
    def __init__(self, text):
        self.entries = {}
        self.hashes = {}
        """Name → SHA-256 of each file that may be installed for it."""
        self.via = {}
        """Name → names of what needs it; the project's own, or none, for what was asked for itself."""
        for entry in ENTRY.finditer(text):
            requirement = Requirement(entry["requirement"])
            self.entries[requirement.name] = requirement
            self.hashes[requirement.name] = re.findall(r"[0-9a-f]{64}", entry["hashes"])
            words = re.sub(r"^ *#( *via)?", "", entry["via"], flags=re.MULTILINE).split()
            self.via[requirement.name] = {word for word in words if not word.startswith("(")}
        self.rest = ENTRY.sub("", text)

    def version(self, name):
        (pin,) = self.entries[name].specifier
        return pin.version

    @property
    def direct(self):
        """Names that were asked for by the project itself."""
        return {name for name, via in self.via.items() if not via or "sems-gateway" in via}

    def on_linux(self):
        """Names of what is installed on the machines that the gateway runs on, Linux with CPython."""
        where = {"sys_platform": "linux", "implementation_name": "cpython", "platform_python_implementation": "CPython"}
        return {name for name, entry in self.entries.items() if not entry.marker or entry.marker.evaluate(where)}
