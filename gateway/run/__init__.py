"""Puts a gateway together and runs it."""
