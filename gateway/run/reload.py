"""What has changed between two readings of a configuration, and what of it a running gateway can take up."""

from collections.abc import Mapping

import msgspec

from gateway.config.document import ConfigError, Problem
from gateway.run.settings import BridgeConfig, Config


class Changes(msgspec.Struct, frozen=True):
    """Names of bridges, and whether the rest has changed."""

    gone: tuple[str, ...]
    changed: tuple[str, ...]
    fresh: tuple[str, ...]
    control: bool
    log: bool

    def __str__(self) -> str:
        """Return it in words."""
        parts = [
            f"{words} {', '.join(names)}"
            for words, names in (("started", self.fresh), ("restarted", self.changed), ("ended", self.gone))
            if names
        ]
        parts += ["control has other rules"] if self.control else []
        parts += ["the log has another level"] if self.log else []
        return "; ".join(parts) or "nothing has changed"


def changes(old: Config, new: Config) -> Changes:
    """Return what is to be done. Raises ConfigError for what a running gateway can't take up."""
    problems = [
        Problem(0, section, "is read at the start alone; put it back, or restart the gateway")
        for section in ("gateway", "audit")
        if getattr(old.root, section) != getattr(new.root, section)
    ]
    if old.root.log.format != new.root.log.format:
        problems.append(Problem(0, "log.format", "is read at the start alone; put it back, or restart the gateway"))
    if problems:
        raise ConfigError(new.file, problems)
    before, after = _by_name(old), _by_name(new)
    return Changes(
        gone=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and _differ(before[name], after[name])),
        fresh=tuple(name for name in after if name not in before),
        control=old.root.control != new.root.control,
        log=old.root.log.level != new.root.log.level,
    )


def _by_name(config: Config) -> Mapping[str, BridgeConfig]:
    return {bridge.name: bridge for bridge in config.bridges}


def _differ(one: BridgeConfig, other: BridgeConfig) -> bool:
    return (one.type, one.settings) != (other.type, other.settings)
