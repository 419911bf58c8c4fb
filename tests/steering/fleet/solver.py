"""The same question put to HiGHS, a solver that we did not write: how near the members can come to a target."""

import math

import highspy

GAP = 1e-4
"""W. How far from the best the solver may stop."""


def solver():
    """Return a quiet solver."""
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("mip_abs_gap", GAP)
    highs.setOptionValue("mip_rel_gap", 0.0)
    return highs


def least_missed(target, members):
    """Return by how many W the members must miss the target, at least."""
    highs = solver()
    missed = highs.addVariable(0, math.inf)
    total = 0.0
    for member in members:
        total += _power(highs, member)
    highs.addConstr(total - missed <= target)
    highs.addConstr(total + missed >= target)
    highs.minimize(1.0 * missed)
    return highs.getObjectiveValue()


def _power(highs, member):
    low, high, step = member.low, member.high, member.step
    if step and math.ceil(low / step - 1e-9) <= math.floor(high / step + 1e-9):
        least, most = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        power = step * highs.addIntegral(least, most)
    else:
        power = 1.0 * highs.addVariable(low, high)
    if member.minimum and low <= 0 <= high:
        gives, takes = highs.addBinary(), highs.addBinary()
        highs.addConstr(1.0 * gives + 1.0 * takes <= 1)
        highs.addConstr(power - max(high, 0) * gives + member.minimum * takes <= 0)
        highs.addConstr(power - member.minimum * gives + max(-low, 0) * takes >= 0)
        if high < member.minimum:
            highs.addConstr(1.0 * gives <= 0)
        if -low < member.minimum:
            highs.addConstr(1.0 * takes <= 0)
    return power
