"""Resolve declared targets and observed nodes to a resolution. Pure: no I/O."""
