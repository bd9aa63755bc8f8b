"""Observed: backends ask one source each where machines are.

Each is a pure file that interprets (`*_wire`) and a thin one that asks. `static` asks nothing.
"""
