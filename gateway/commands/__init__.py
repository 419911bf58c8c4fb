"""The life of a command: its states, who may command what, what became of it."""
