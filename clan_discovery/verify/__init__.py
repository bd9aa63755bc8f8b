"""Compare what should be scraped with what the running scrapers do.

`wire`, `jobs`, `match` and `judge` are pure; `ask` is the only asker.

    verification = verify(round_.resolution, verify_settings(loaded), time)
"""

from __future__ import annotations

from clan_discovery.verify.ask import verify
from clan_discovery.verify.settings import AskedProgram, VerifySettings

__all__ = ["AskedProgram", "VerifySettings", "verify"]
