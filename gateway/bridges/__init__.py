"""Bridges: one folder each, one protocol each. None imports another."""
