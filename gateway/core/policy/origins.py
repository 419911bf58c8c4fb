"""Who asks, as one text: `<bridge>[/<role>][:<detail>]`, e.g. `modbus/operator:10.0.0.7:40122`.

Policy knows bridge and role. The detail (address, user) is for people: it may be anything.
"""

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

_PARTING: Final = re.compile("[/:%]")
"""What a role must not have in clear: with `guest:x` or `a/b` it would pass for another."""


def origin(bridge: str, role: str = "", detail: str = "") -> str:
    """Return who asks. In a role that the far side chose, `/`, `:` and `%` are percent-encoded."""
    named = f"{bridge}/{escape(role)}" if role else bridge
    return f"{named}:{detail}" if detail else named


def escape(role: str) -> str:
    """Return a role as it stands in origins and rules."""
    return _PARTING.sub(lambda match: f"%{ord(match[0]):02X}", role)


def who(origin: str) -> str:
    """Return `<bridge>[/<role>]`, which is what policy judges by."""
    return origin.partition(":")[0]


@lru_cache(maxsize=4096)
def matches(pattern: str, who: str) -> bool:
    """Return whether a pattern of a rule speaks of `<bridge>[/<role>]`. One without a role covers all roles."""
    return fnmatchcase(who, pattern) or ("/" not in pattern and fnmatchcase(who.partition("/")[0], pattern))
