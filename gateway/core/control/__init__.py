"""The way of a command, from the wish to its end."""
