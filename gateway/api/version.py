"""The version of what a plug-in may rely on. docs/plugins.md says what changes when."""

from typing import Final

API_VERSION: Final = "1.0"
"""`<major>.<minor>`: a new major breaks plug-ins, a new minor only adds."""


def unfit(built_for: str) -> str:
    """Return why a plug-in built for that version can't be used with this one, and what to do; "" where it can."""
    major, minor = _parts(API_VERSION)
    try:
        theirs, least = _parts(built_for)
    except ValueError:
        return f'its api_version {built_for!r} is no version; write api_version = "{API_VERSION}"'
    if theirs != major:
        older = "an older" if theirs < major else "a newer"
        instead = "the plug-in" if theirs < major else "sems-gateway"
        return f"it was built for {older} API, {built_for}, and this gateway has {API_VERSION}; upgrade {instead}"
    if least > minor:
        return f"it needs API {built_for}, and this gateway has {API_VERSION}; upgrade sems-gateway"
    return ""


def _parts(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)
