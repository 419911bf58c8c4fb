"""Patterns of rules that name origins."""

from fnmatch import fnmatchcase
from functools import lru_cache


@lru_cache(maxsize=4096)
def matches(pattern: str, who: str) -> bool:
    """Return whether a pattern of a rule speaks of `<bridge>[/<role>]`. One without a role covers all roles."""
    return fnmatchcase(who, pattern) or ("/" not in pattern and fnmatchcase(who.partition("/")[0], pattern))
