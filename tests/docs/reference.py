"""Pages of docs/reference that are made from the code: settings, commands, points, the HTTP API."""

import json
from importlib import import_module
from pkgutil import walk_packages

import typer
from prometheus_client.metrics import MetricWrapperBase

import gateway
from gateway.api.registry import installed
from gateway.bridges.web.openapi import OPERATIONS
from gateway.cli.root import COMMANDS, loaded
from gateway.core.metrics import Metrics
from gateway.core.points import POINTS, Kind
from gateway.run.schema import json_schema

ELSEWHERE = {"file": "PATH", "env": "NAME"}
"""Where a secret may stand instead."""
SECTIONS = ("gateway", "log", "control", "audit")
NAMED = ("fleets", "limits")
"""Sections that have a name for each entry."""


def cell(text):
    """Return a text as a cell: what looks like a tag is none, but where it is code already."""
    parts = " ".join(str(text).split()).replace("|", "\\|").split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


class Settings:
    """The JSON Schema of a configuration as tables, a row a setting; those of groups have the group's name in front."""

    def __init__(self):
        self.schema = json_schema(installed())

    def resolved(self, found):
        """A schema without its reference; what stands beside it, the description, is kept."""
        while "$ref" in found:
            target = self.schema
            for part in found["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            found = target | {key: value for key, value in found.items() if key != "$ref"}
        return found

    def choices(self, found):
        found = self.resolved(found)
        return [one for part in found.get("anyOf") or found.get("oneOf") or [] for one in self.choices(part)] or [found]

    def type(self, found):
        words = []
        for one in self.choices(found):
            if "const" in one or "enum" in one:
                words += [f"`{value}`" for value in one.get("enum", [one.get("const")])]
            elif one.get("type") == "array":
                words.append(f"list of {self.type(one.get('items', {}))}")
            elif one.get("type") == "object":
                words.append(self.mapping(one))
            else:
                types = one.get("type", "any value")
                words.append((types if isinstance(types, str) else " or ".join(types)) + self.limits(one))
        return " or ".join(dict.fromkeys(words))

    def mapping(self, one):
        """What stands for a mapping: that of a secret, of names, or a group of settings."""
        if (only := next(iter(one.get("properties", ())), "")) in ELSEWHERE and len(one["properties"]) == 1:
            return f"`{{{only}: {ELSEWHERE[only]}}}`"
        values = one.get("additionalProperties")
        return f"name: {self.type(values)}" if isinstance(values, dict) else "group"

    @staticmethod
    def limits(one):
        signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        return "".join(f" {sign} {one[key]}" for key, sign in signs.items() if key in one)

    def rows(self, found, before="", above=()):
        """(name, what it takes, default, description) of each setting of a group, and of the groups in it."""
        required = found.get("required", ())
        for name, setting in found.get("properties", {}).items():
            if name == "type" and not before:
                continue
            whole = self.resolved(setting)
            groups = list(self.groups(setting))
            # The defaults of a group are those of its settings.
            told = "default" in whole and not (groups and isinstance(whole["default"], dict))
            default = f"`{json.dumps(whole['default'], ensure_ascii=False)}`" if told else ""
            yield (
                f"`{before}{name}`",
                self.type(setting),
                "required" if name in required else default,
                whole.get("description", ""),
            )
            for mark, group in groups:
                if group.get("title") not in above:
                    yield from self.rows(group, f"{before}{name}{mark}", (*above, group.get("title")))

    def groups(self, setting):
        """(what stands behind its name, group) of each group that a setting takes, or a list or mapping of it."""
        for one in self.choices(setting):
            mark, inner = ".", one
            if one.get("type") == "array":
                mark, inner = "[].", one.get("items", {})
            elif isinstance(one.get("additionalProperties"), dict):
                mark, inner = ".*.", one["additionalProperties"]
            for group in self.choices(inner):
                if group.get("properties") and not group["properties"].keys() <= ELSEWHERE.keys():
                    yield mark, group

    def of(self, heading, found):
        return f"## {heading}\n\n" + table(("setting", "takes", "default", "what it is"), self.rows(found))


def settings():
    made = Settings()
    parts = [made.of(f"`{name}:`", made.resolved(made.schema["properties"][name])) for name in SECTIONS]
    parts += [made.of(f"`{name}:`, each name", made.schema["$defs"][name]) for name in NAMED]
    types = made.schema["properties"]["bridges"]["additionalProperties"]["properties"]["type"]["enum"]
    parts += [made.of(f"`type: {type_}`", made.schema["$defs"][type_]) for type_ in types]
    return "\n\n".join(parts)


def commands():
    parts = []
    for name, text in COMMANDS.items():
        command = loaded(name)
        context = typer.Context(command, info_name=f"sems-gateway {name}")
        usage = " ".join(command.collect_usage_pieces(context)) if command.params else ""
        parts.append(f"## `{name}`\n\n{text}\n\n`sems-gateway {name} {usage}`".replace(" `\n", "`\n"))
        rows = [
            (", ".join(f"`{one}`" for one in (*each.opts, *each.secondary_opts)), each.help or "")
            for each in command.params
            if each.param_type_name == "option" and not each.hidden
        ]
        if rows:
            parts.append(table(("option", "what it does"), rows))
    return "\n\n".join(parts)


def points():
    parts = []
    for kind in Kind:
        rows = [
            (f"`{point.id}`", point.unit, point.type, point.description, ", ".join(f"`{o}`" for o in point.options))
            for point in POINTS.values()
            if point.kind is kind and kind is not Kind.SETPOINT
        ]
        if rows:
            title = {Kind.MEASUREMENT: "Measurements", Kind.TOTAL: "Totals", Kind.STATE: "States"}[kind]
            parts.append(f"## {title}\n\n" + table(("point", "unit", "type", "what it is", "values"), rows))
    return "\n\n".join(parts)


def http_api():
    rows = []
    for (method, path), row in OPERATIONS.items():
        asked = ", ".join(f"`{one['name']}`" for one in row.query)
        statuses = ", ".join(map(str, row.answers))
        rows.append((f"`{method} {path}`", row.text, row.scope or "nobody is asked", asked, statuses))
    return table(("call", "what it does", "scope", "query", "answers"), rows)


def metrics():
    modules = [import_module(m.name) for m in walk_packages(gateway.__path__, "gateway.") if "__main__" not in m.name]
    objects = [value for module in modules for value in vars(module).values()]
    found = {family.name: family for one in objects if isinstance(one, Metrics) for family in one.describe()}
    # Those of prometheus_client itself; a child has its labels' values, and is no metric of its own.
    found |= {one._name: one for one in objects if isinstance(one, MetricWrapperBase) and not one._labelvalues}
    rows = []
    for name, one in sorted(found.items()):
        if name.startswith("sems_gateway"):
            kind = getattr(one, "_type", None) or one.type
            labels = ", ".join(f"`{label}`" for label in one._labelnames)
            rows.append(
                (
                    f"`{name}{'_total' * (kind == 'counter')}`",
                    kind,
                    labels,
                    one.documentation if hasattr(one, "documentation") else one._documentation,
                )
            )
    return table(("metric", "type", "labels", "what it is"), rows)
