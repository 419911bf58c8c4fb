"""A limit at the grid connection, set from outside, with a failsafe where whoever sets it falls silent."""
