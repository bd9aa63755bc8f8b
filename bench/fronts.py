"""Measure how long it takes to write the config of a reverse proxy with 1,000 fronts, for each kind.

    make bench-fronts

The fronts demand each kind of authentication in turn. Time is CPU time, the best of some runs.
"""

from __future__ import annotations

import time
from typing import Final

from clan_discovery.emit.fronts import render_fronts
from clan_discovery.model import ForwardAuth, Front, FrontAuth, FrontKind, FrontSettings

FRONTS: Final = 1000
REPEATS: Final = 9
AUTHS: Final[tuple[FrontAuth, ...]] = ("none", "basic", "forward", "oidc")
KINDS: Final[tuple[FrontKind, ...]] = ("caddy", "nginx", "traefik")
MOST_S: Final = 0.1


def front(number: int) -> Front:
    """Return a front with a domain of its own."""
    return Front(
        service=f"service{number}",
        domain=f"service{number}.home.example.org",
        machine=f"machine{number}",
        port=8080,
        auth=AUTHS[number % len(AUTHS)],
        address=f"10.0.{number // 250}.{number % 250}:8080",
        because=f"exposed: service{number}",
    )


def main() -> None:
    """Print the time and the size of each kind."""
    fronts = [front(number) for number in range(FRONTS)]
    forward = ForwardAuth(url="http://127.0.0.1:9091/check", headers=("Remote-User", "Remote-Groups"))
    for kind in KINDS:
        settings = FrontSettings(
            kind=kind,
            tls="files",
            certificate="/certificate.pem",
            key="/key.pem",
            basic="/users",
            forward=forward,
            oidc="http://127.0.0.1:4180",
        )
        times: list[float] = []
        text = ""
        for _ in range(REPEATS):
            start = time.process_time()
            text = render_fronts(fronts, settings)
            times.append(time.process_time() - start)
        best = min(times)
        print(f"{kind:8} {FRONTS} fronts: {best * 1000:5.1f} ms, {len(text):,} bytes; to reach: {MOST_S * 1000:g} ms")


if __name__ == "__main__":
    main()
