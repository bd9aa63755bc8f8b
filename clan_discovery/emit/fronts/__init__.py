"""Write the config of a reverse proxy: one virtual host for each domain of the fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import Front, FrontSettings


def render_fronts(fronts: Sequence[Front], settings: FrontSettings) -> str:
    """Return the config for the kind of proxy in the settings. The same arguments give the same text.

    The fronts are checked and located (`resolve.fronts`).
    """
    match settings.kind:
        case "caddy":
            from clan_discovery.emit.fronts.caddy import render_caddy  # noqa: PLC0415 - only the one that is used

            return render_caddy(fronts, settings)
        case "nginx":
            from clan_discovery.emit.fronts.nginx import render_nginx  # noqa: PLC0415 - as above

            return render_nginx(fronts, settings)
        case "traefik":
            from clan_discovery.emit.fronts.traefik import render_traefik  # noqa: PLC0415 - as above

            return render_traefik(fronts, settings)
