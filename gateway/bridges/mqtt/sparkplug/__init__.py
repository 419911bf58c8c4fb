"""Sparkplug B 3.0: the gateway as an edge node, SEMS devices as its devices.

Names in brackets, like [topics-nbirth-seq-num], are the specification's statement ids without their `tck-id-`.
"""
