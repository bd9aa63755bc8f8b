"""The live checks of `doctor`: what keeps targets from being right, and how to fix it. Changes nothing."""

from clan_discovery.doctor.examine import examine
from clan_discovery.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
