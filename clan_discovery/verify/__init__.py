"""Compare what should be scraped with what the running scrapers do.

`wire`, `jobs`, `match` and `judge` are pure; `ask` is the only asker.

    verification = verify(round_.resolution, verify_settings(loaded), time)
"""

from __future__ import annotations

from clan_discovery.verify.ask import loaded_rules, verify
from clan_discovery.verify.http import AskError, probe
from clan_discovery.verify.settings import LOCAL_RULES, AskedProgram, VerifySettings

__all__ = ["LOCAL_RULES", "AskError", "AskedProgram", "VerifySettings", "loaded_rules", "probe", "verify"]
