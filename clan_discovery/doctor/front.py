"""Check the file of the reverse proxy, and the files that the proxy reads. Changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from clan_discovery.doctor.finding import Finding
from clan_discovery.emit.fronts import render_fronts
from clan_discovery.emit.fronts.sites import MADE
from clan_discovery.errors import Exit, PublishError
from clan_discovery.publish.files import check_front
from clan_discovery.reading import has_content
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clan_discovery.model import FrontSettings, Resolution
    from clan_discovery.round import Plan

_WITHOUT_USERS = {
    "caddy": "caddy refuses its whole config",
    "nginx": "nginx answers 403",
    "traefik": "traefik answers 404 for these fronts",
}
"""What the proxies do without the file of users."""


def examine_front(plan: Plan, resolution: Resolution) -> Iterator[Finding]:
    """Check that a refresh can write the file, that it is current, and that the files named in it are there."""
    file, settings = plan.front_file, plan.policy.front
    if settings is not None and settings.receive is not None:
        from clan_discovery.doctor.receiver import examine_receiver  # noqa: PLC0415 - most fronts receive nothing

        yield from examine_receiver(settings)
    if file is None or settings is None:
        return
    about = f"front {file}"
    try:
        check_front(file, MADE.encode())
        yield _file_finding(about, file, settings, resolution)
    except PublishError as error:
        yield Finding("error", about, str(error), error.hint or "", Exit.NOT_WRITTEN)
    except OSError as error:
        yield Finding("error", about, f"it cannot be read: {error.strerror}", "chmod 644 it", Exit.NOT_WRITTEN)
    yield from _missing_files(about, settings, resolution)


def _file_finding(about: str, file: Path, settings: FrontSettings, resolution: Resolution) -> Finding:
    fronts = plural(len(resolution.fronts), "front")
    if not os.path.lexists(file):
        return Finding("warning", about, f"it does not exist yet; {fronts}", "clan-discovery refresh")
    if resolution.front_kept:
        return Finding("warning", about, "it is kept as it is: memory is lost, and a backend does not answer")
    if not has_content(file, render_fronts(resolution.fronts, settings).encode()):
        return Finding(
            "warning", about, f"it is not current; {fronts}", "clan-discovery refresh, then reload the proxy"
        )
    return Finding("ok", about, f"current; {fronts}")


def _missing_files(about: str, settings: FrontSettings, resolution: Resolution) -> Iterator[Finding]:
    """Yield a finding for each file that the proxy would not find. A directory that is closed to us tells nothing."""
    if any(front.auth == "basic" for front in resolution.fronts) and _is_absent(settings.basic):
        fix = "write it with htpasswd (docs/fronts.md), or correct front.auth.basic.file"
        yield Finding("warning", about, f"{settings.basic} does not exist: {_WITHOUT_USERS[settings.kind]}", fix)
    for key, path in (
        ("tls.certificate", settings.certificate),
        ("tls.key", settings.key),
        ("ca_file", settings.ca),
    ):
        if path and _is_absent(path):
            yield Finding("warning", about, f"{path} does not exist", f"correct front.{key}, or write the file")


def _is_absent(path: str) -> bool:
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
