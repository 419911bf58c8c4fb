"""How much of a changed SEMS `learn` restores, over many dialects of the simulator: `python -m tests.dialects`."""
