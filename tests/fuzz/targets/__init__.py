"""The table of what is fuzzed, a row for each parser that meets the outside."""

from tests.fuzz.targets import csip, doors, files, http, journal, messages, sems

TARGETS = {
    target.name: target for group in (sems, doors, http, csip, messages, files, journal) for target in group.TARGETS
}
