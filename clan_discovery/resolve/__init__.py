"""Declared meets observed: expected targets and the fleet become a resolution. Pure; no clock, no files."""
