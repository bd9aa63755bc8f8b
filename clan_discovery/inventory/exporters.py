"""What is known of exporters by name: port, path and parameters.

Facts live in two data files of the package: `exporters.json` (every `services.prometheus.exporters.<name>` of
NixOS, from nixpkgs' module files) and `services.json` (programs that serve metrics themselves, each with its
source). This file only looks them up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, TypedDict

from clan_discovery.model import Exporter
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names that NixOS once had, as users' configurations still say them (nixpkgs, exporters.nix: rename and remove).
_RENAMED = {
    "unifi-poller": "it is called 'unpoller' now",
    "minio": "NixOS removed it in 24.11; MinIO serves metrics itself: give the port",
    "tor": "NixOS removed it: give the port",
    "rspamd-exporter": "rspamd serves metrics itself: use 'rspamd'",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownExporter:
    """A type that needs no port: `kind` `probe` serves nothing without a `target`."""

    name: str
    port: int
    path: str
    kind: Literal["plain", "probe", "service"]
    nixos: bool
    params: tuple[tuple[str, str], ...] = ()


class _Entry(TypedDict):
    port: int
    path: str
    kind: Literal["plain", "probe"]


class _Service(TypedDict):
    port: int
    path: str
    params: NotRequired[dict[str, list[str]]]


@cache
def known_exporters() -> Mapping[str, KnownExporter]:
    """Return every known type by name: NixOS exporters first, then services under names not taken."""
    data = Path(__file__).parent.parent / "data"
    exporters: dict[str, _Entry] = json.loads((data / "exporters.json").read_bytes())
    services: dict[str, _Service] = json.loads((data / "services.json").read_bytes())
    known = {
        name: KnownExporter(name=name, port=e["port"], path=e["path"], kind=e["kind"], nixos=True)
        for name, e in exporters.items()
    }
    # The option stands in NixOS up to 25.11 and is gone from the newest list; clans of both exist.
    known["scaphandre"] = KnownExporter(name="scaphandre", port=8080, path="/metrics", kind="plain", nixos=True)
    for name, service in services.items():
        params = tuple((key, values[0]) for key, values in service.get("params", {}).items())
        entry = KnownExporter(
            name=name, port=service["port"], path=service["path"], kind="service", nixos=False, params=params
        )
        known.setdefault(name, entry)
    return known


def default_exporter(type_: str, port: int | None = None) -> Exporter | None:
    """Return the exporter of this type with its defaults, or None where the type is unknown and no port given."""
    known = known_exporters().get(type_)
    if known is None:
        return None if port is None else Exporter(type=type_, port=port)
    return Exporter(type=type_, port=port or known.port, path=known.path, params=known.params)


def is_idle(exporter: Exporter) -> bool:
    """Tell whether this is a probe that nobody told what to probe: it serves nothing, and is no target."""
    known = known_exporters().get(exporter.type)
    return known is not None and known.kind == "probe" and not {"target", "script"} & {n for n, _ in exporter.params}


def unknown_type_hint(type_: str) -> str:
    """Say what to do about an exporter type that nobody knows."""
    renamed = _RENAMED.get(type_)
    return renamed or did_you_mean(type_, known_exporters()) or "give its port"
