"""Known exporter types: port, path and parameters by name.

The facts are in two data files: `exporters.json` (every `services.prometheus.exporters.<name>` of NixOS, from nixpkgs'
module files) and `services.json` (programs that serve metrics themselves, each with its source).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from clan_discovery.model import Exporter
from clan_discovery.syntax.endpoint import split_endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clan_discovery.syntax.suggest import Suggester

ExporterLookup: TypeAlias = "Callable[[str, int | None], Exporter | None]"
"""Returns the exporter of a type and a port (None: its default port); None if the port is unknown."""

# Names that NixOS had once and that configurations still use (nixpkgs, exporters.nix: rename and remove).
_RENAMED = {
    "unifi-poller": "it is called 'unpoller' now",
    "minio": "NixOS removed it in 24.11; MinIO serves metrics itself: give the port",
    "tor": "NixOS removed it: give the port",
    "rspamd-exporter": "rspamd serves metrics itself: use 'rspamd'",
}


class KnownExporter(msgspec.Struct, frozen=True):
    """An exporter type with a known port.

    A type of the kind `probe` serves nothing without a `target`.
    """

    port: int
    path: str
    kind: Literal["plain", "probe", "service"] = "service"
    params: dict[str, list[str]] = {}

    @property
    def nixos(self) -> bool:
        """Tell whether NixOS has an exporter of this type."""
        return self.kind != "service"


@cache
def known_exporters() -> Mapping[str, KnownExporter]:
    """Return every known type by name.

    NixOS exporters come first, then services whose names are not taken.
    """
    data = Path(__file__).parent.parent / "data"
    decode = msgspec.json.Decoder(dict[str, KnownExporter]).decode
    services, exporters = (decode((data / file).read_bytes()) for file in ("services.json", "exporters.json"))
    # NixOS has the option up to 25.11, and clans of both releases exist.
    scaphandre = KnownExporter(8080, "/metrics", kind="plain")
    return services | exporters | {"scaphandre": scaphandre}


def default_exporter(type_: str, port: int | None = None) -> Exporter | None:
    """Return the exporter of a type with its defaults.

    None if the type is unknown and no port is given.
    """
    known = known_exporters().get(type_)
    if known is not None:
        params = tuple((name, values[0]) for name, values in known.params.items())
        return Exporter(type=type_, port=port or known.port, path=known.path, params=params)
    if port is not None:
        return Exporter(type=type_, port=port)
    return None


def idle_complaint(exporter: Exporter) -> str | None:
    """Say that a probe has no target to probe; None for other exporters."""
    known = known_exporters().get(exporter.type)
    is_probe = known is not None and known.kind == "probe"
    if not is_probe or dict(exporter.params).keys() & {"target", "script"}:
        return None
    return f"{exporter.type} probes others: it serves nothing without a `target` setting"


def probe_hint(type_: str) -> str:
    """Say how to give a probe its target in the config."""
    return f"set exporters.{type_}.params.target in the config"


class TargetError(ValueError):
    """A listed target that cannot be scraped, with the fix in `hint`."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


def listed_target(job: str, text: str, lookup: ExporterLookup) -> tuple[str, Exporter]:
    """Parse a target of a list: `host:port`, or `host` if the type has a known port.

    Raises:
        TargetError: it is not a target, it has no port, or it is a probe without a target.
    """
    try:
        host, port = split_endpoint(text)
    except ValueError as error:
        raise TargetError(str(error)) from None
    exporter = lookup(job, port)
    if exporter is None:
        raise TargetError(f"{text!r} has no port, and no exporter is called {job!r}", "write host:port")
    if complaint := idle_complaint(exporter):
        raise TargetError(complaint, probe_hint(job))
    return host, exporter


def unknown_type_hint(type_: str, suggester: Suggester) -> str:
    """Say how to fix an unknown exporter type."""
    bare = re.sub("^prometheus[-_]|[-_]exporter$", "", type_.casefold())
    if bare != type_ and bare in known_exporters():
        return f"did you mean {bare!r}?"
    return _RENAMED.get(type_) or suggester.did_you_mean(type_, known_exporters()) or "give its port"
