"""Write the config of the program that receives what agents send. It holds their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.model import AgentToken, FrontSettings, ReceiveSettings


def render_receiver(tokens: Sequence[AgentToken], receive: ReceiveSettings, front: FrontSettings) -> str:
    """Return the config for the kind of receiver in the settings. The same arguments give the same text."""
    if receive.kind == "nginx":
        from clan_discovery.emit.receive.nginx import render_nginx_receiver  # noqa: PLC0415 - only the one that is used

        return render_nginx_receiver(tokens, receive, front)
    from clan_discovery.emit.receive.vmauth import render_vmauth_receiver  # noqa: PLC0415 - as above

    return render_vmauth_receiver(tokens, receive)
