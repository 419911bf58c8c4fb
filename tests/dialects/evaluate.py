"""Runs `learn`'s inference over dialects, and counts."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import msgspec

from gateway.learn.infer import infer
from gateway.sems.catalogue import load
from tests.dialects.changes import Change
from tests.dialects.cloud import Cloud, SharedWorld
from tests.dialects.collect import collect, repeat
from tests.dialects.judge import Verdict, judge
from tests.dialects.truth import Truth

APIS = ("open_api", "developer", "realtime")
WORLDS = 5
"""Seeds of weather and habits that dialects are tried over."""


class Result(msgspec.Struct):
    """What became of one dialect."""

    api: str
    seed: int
    judged: list
    wrong: list
    kinds: set
    """Of the whole dialect, beside those of lines."""
    date: str
    """How its dates are written, strftime; empty where they are not."""
    date_format: str
    """What was learned of that."""


def evaluate(world_seed, tasks):
    """Infer dialects, (API, seed) each, over one world; returns their results."""
    return asyncio.run(_evaluate(world_seed, tasks))


async def _evaluate(world_seed, tasks):
    usual = {api: await usual_of(api, world_seed) for api in dict.fromkeys(api for api, _ in tasks)}
    found = await dialects_of(SharedWorld(world_seed), tasks, usual)
    return [_result(truth, infer(truth.dialect.base, learned)) for truth, learned in found]


async def usual_of(api, world_seed):
    """Return what `learn` gets of a cloud as the catalogue has it."""
    async with Cloud(api, world=SharedWorld(world_seed)) as cloud:
        await cloud.log_in()
        [answers] = await collect(cloud.world, [cloud])
    return answers


async def dialects_of(world, tasks, usual):
    """Return the truth of each dialect, and what `learn` gets of it.

    What is there to be known is what it would get of a cloud as the catalogue has it. So it is a miss, too, what it
    does not ask for, because it does not understand a list.
    """
    async with AsyncExitStack() as stack:
        clouds = [Cloud(api, dialect=seed, world=world) for api, seed in tasks]
        for cloud in clouds:
            await stack.enter_async_context(cloud)
            await cloud.log_in()
        calls = [usual[api] for api, _ in tasks]
        said = [await repeat(cloud, its) for cloud, its in zip(clouds, calls, strict=True)]
        learned = await collect(world, clouds)
        said = [first + await repeat(*more) for first, *more in zip(said, clouds, calls, strict=True)]
    truths = [Truth(world, cloud.dialect, *both) for cloud, *both in zip(clouds, calls, said, strict=True)]
    return list(zip(truths, learned, strict=True))


def _result(truth, report):
    dialect = truth.dialect
    judged, wrong = judge(truth, report)
    local = any(line.after is not None and line.after.type == "local_time" for line in dialect.lines)
    whole = {
        Change.ENVELOPE: dialect.message is not None or dialect.code_as_text is not None,
        Change.NOISE: dialect.noise > 0,
    }
    kinds = {kind for kind, is_so in whole.items() if is_so}
    date = (dialect.date or "%Y-%m-%d") if local else ""
    return Result(dialect.base.api, dialect.seed, judged, wrong, kinds, date, report.date_format)


COLUMNS = ("changed", "identifiable", "restored", "candidate", "missed", "share", "wrong")


def table(results):
    """Return the rows: kind of change, and a number for each column."""
    rows = {kind: Counter() for kind in (*Change, "all")}
    for result in results:
        for one in result.judged:
            for kind in (one.kinds & set(Change)) | result.kinds | {"all"}:
                rows[kind]["changed"] += 1
                if one.identifiable:
                    rows[kind]["identifiable"] += 1
                    rows[kind][one.verdict.value] += 1
        for wrong in result.wrong:
            for kind in wrong.kinds | result.kinds | {"all"}:
                rows[kind]["wrong"] += 1
    for row in rows.values():
        row["share"] = 100 * row["restored"] / row["identifiable"] if row["identifiable"] else 100.0
    return {kind: row for kind, row in rows.items() if row["changed"] or row["wrong"]}


def markdown(results, seeds):
    """Return the table for docs/reference/dialects.md."""
    lines = []
    for api in dict.fromkeys(result.api for result in results):
        found = table([result for result in results if result.api == api])
        lines += [
            f"{load(api).title}, {seeds} dialects:",
            "",
            "| kind of change | changed | identifiable | restored | as a comment | missed | restored, % | wrong |",
            "| --- | --: | --: | --: | --: | --: | --: | --: |",
        ]
        for kind, row in found.items():
            numbers = [row[name] for name in COLUMNS]
            numbers[5] = f"{numbers[5]:.1f}"
            lines.append(f"| {kind} | {' | '.join(map(str, numbers))} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def failures(results):
    """Return what a reader of the inference wants to see: identifiable lines that were not restored, and all wrong."""
    for result in results:
        for wrong in result.wrong:
            yield f"{result.api} {result.seed} WRONG {wrong.interface}: {wrong.text}"
        for one in result.judged:
            if one.identifiable and one.verdict is not Verdict.RESTORED:
                before, after = one.line.before, one.line.after
                what = before.point or before.attribute
                kinds = ", ".join(sorted(one.kinds))
                yield (
                    f"{result.api} {result.seed} {one.verdict} {one.line.interface}: {before.field} -> {after.field} "
                    f"({what}, scale {before.scale:g} -> {after.scale:g}, {before.type} -> {after.type}; {kinds})"
                )
