"""What an account's own answers say of the catalogue: `infer(catalogue, answers)`, and what stands round it.

`infer` is a pure function of a catalogue (as `load` gives it) and answers (`gateway.sems.recording.Answer`, in the
order they came), and returns a `Report`: `report.overrides` is what it is sure of, as a bridge's `overrides` takes it;
`report.lines` has a state and candidates, with their evidence, for every line of the interfaces that answered.
"""

from gateway.learn.infer import READING, infer
from gateway.learn.report import Report

__all__ = ["READING", "Report", "infer"]
