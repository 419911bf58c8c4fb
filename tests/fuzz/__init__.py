"""Broken inputs for every parser that meets the outside. `make fuzz` runs each for a while; `targets` is the table."""
