"""The overrides of somebody who knows a dialect: what `learn` should come to where everything can be told."""

from types import SimpleNamespace

SAID = ("field", "scale", "type")


def overrides_of(dialect):
    """Return what `overrides` has to say of each line that a dialect has otherwise."""
    interfaces = {}
    for usual, spoken in zip(dialect.base.interfaces, dialect.catalogue.interfaces, strict=True):
        said = {}
        if usual.lists != spoken.lists:
            said["lists"] = list(spoken.lists)
        fields = {}
        for line in dialect.lines:
            if line.interface == usual.name and line.after is not None:
                changed = {name: getattr(line.after, name) for name in SAID}
                changes = {name: value for name, value in changed.items() if value != getattr(line.before, name)}
                if changes:
                    fields[line.before.field] = changes
        if fields:
            said["fields"] = fields
        if said:
            interfaces[usual.name] = said
    return {"interfaces": interfaces} if interfaces else {}


def report_of(overrides):
    """Return a report that says this and nothing else."""
    return SimpleNamespace(overrides=overrides, interfaces=(), lines=(), of=lambda _: [])
