"""Build Go programs, pinned by `go/<name>/go.mod` and `go.sum`, once into a cache.

The cache is `$XDG_CACHE_HOME/clan-discovery` (default `~/.cache`). The directory name depends on the pins and on Go's
version, so a change of either builds again. A finished build is renamed into place.

python -m tests.support.builds GROUP    build what is missing: `tailnet`, `scrapers`, `agents`, `loki`,
                                         `fronts`, `traefik`, `exporters`, `alerting` or `thanos`
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PINNED: Final = Path(__file__).parent / "go"
_BUILD_S: Final = 1800
_GO_MINOR: Final = 21

_TAILNET: Final = {
    "headscale": "github.com/juanfont/headscale/cmd/headscale",
    "tailscalesd": "github.com/cfunkhouser/tailscalesd/cmd/tailscalesd",
    "tailscaled": "tailscale.com/cmd/tailscaled",
}
_PROMETHEUS: Final = {"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"}
_VICTORIA: Final = {
    name: f"github.com/VictoriaMetrics/VictoriaMetrics/app/{name}"
    for name in ("vmagent", "vmalert", "vmalert-tool", "vmauth", "victoria-metrics")
}
_LOGS: Final = {name: f"github.com/VictoriaMetrics/VictoriaLogs/app/{name}" for name in ("victoria-logs", "vlagent")}
_LOKI: Final = {"loki": "github.com/grafana/loki/v3/cmd/loki"}
_OAUTH2_PROXY: Final = {"oauth2-proxy": "github.com/oauth2-proxy/oauth2-proxy/v7"}
_CADDY: Final = {"caddy": "github.com/caddyserver/caddy/v2/cmd/caddy"}
_TRAEFIK: Final = {"traefik": "github.com/traefik/traefik/v3/cmd/traefik"}
_BLACKBOX: Final = {"blackbox_exporter": "github.com/prometheus/blackbox_exporter"}
_SYSTEMD: Final = {"systemd_exporter": "github.com/prometheus-community/systemd_exporter"}
_SMARTCTL: Final = {"smartctl_exporter": "github.com/prometheus-community/smartctl_exporter"}
_ALERTMANAGER: Final = {name: f"github.com/prometheus/alertmanager/cmd/{name}" for name in ("alertmanager", "amtool")}
_ENVSUBST: Final = {"envsubst": "github.com/a8m/envsubst/cmd/envsubst"}
_THANOS: Final = {"thanos": "github.com/thanos-io/thanos/cmd/thanos"}
# One program that is also `tailscale` when called by that name: half the time to build.
_TAGS: Final = "ts_include_cli"

OLD: Final = "v1.96.4"
"""The newest release before 1.98, in which the bus changed first."""
NEW: Final = "v1.102.3"
"""From 1.100, the bus sends no network map after the first message."""
OLDEST: Final = "v1.80.3"
"""The oldest release that headscale 0.29 accepts."""


class NotBuiltError(Exception):
    """A program is missing and could not be built; the message is one line."""


class NoGoError(NotBuiltError):
    """Go is missing or too old."""


def cache() -> Path:
    """Return the directory of the builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clan-discovery"


class Build(NamedTuple):
    """The directory of the pins, the programs that are built from them, and the packages that the cache depends on."""

    pinned: Path
    programs: tuple[str, ...]
    packages: Mapping[str, str]
    tags: str = _TAGS


_BUILDS: Final[Mapping[str, Mapping[str, Build]]] = {
    "tailnet": {
        "headscale": Build(PINNED / "headscale-v0.29.0", ("headscale",), _TAILNET),
        "tailscalesd": Build(PINNED / "tailscalesd-v0.5.0", ("tailscalesd",), _TAILNET),
        **{
            f"tailscaled {version}": Build(PINNED / f"tailscale-{version}", ("tailscaled",), _TAILNET)
            for version in (OLDEST, OLD, NEW)
        },
    },
    "scrapers": {
        "Prometheus 3.5.0": Build(PINNED / "prometheus-v0.305.0", tuple(_PROMETHEUS), _PROMETHEUS),
        "VictoriaMetrics 1.131.0": Build(PINNED / "victoriametrics-v1.131.0", tuple(_VICTORIA), _VICTORIA),
    },
    "agents": {
        "VictoriaLogs 1.47.1": Build(PINNED / "victorialogs-v1.47.1", tuple(_LOGS), _LOGS),
    },
    "loki": {"Loki 3.7.8": Build(PINNED / "loki-v3.7.8", tuple(_LOKI), _LOKI)},
    "fronts": {
        "oauth2-proxy 7.8.1": Build(PINNED / "oauth2-proxy-v7.8.1", tuple(_OAUTH2_PROXY), _OAUTH2_PROXY),
        "Caddy 2.11.9": Build(PINNED / "caddy-v2.11.9", tuple(_CADDY), _CADDY),
    },
    "traefik": {"Traefik 3.6.12": Build(PINNED / "traefik-v3.6.12", tuple(_TRAEFIK), _TRAEFIK)},
    "exporters": {
        "blackbox_exporter 0.27.0": Build(PINNED / "blackbox-exporter-v0.27.0", tuple(_BLACKBOX), _BLACKBOX),
        "systemd_exporter 0.7.0": Build(PINNED / "systemd-exporter-v0.7.0", tuple(_SYSTEMD), _SYSTEMD),
        "smartctl_exporter 0.14.0": Build(PINNED / "smartctl-exporter-v0.14.0", tuple(_SMARTCTL), _SMARTCTL),
    },
    # The versions of nixpkgs. Alertmanager is Debian's where these are not built.
    "alerting": {
        "Alertmanager 0.31.1": Build(PINNED / "alertmanager-v0.31.1", tuple(_ALERTMANAGER), _ALERTMANAGER),
        "envsubst 1.4.3": Build(PINNED / "envsubst-v1.4.3", tuple(_ENVSUBST), _ENVSUBST),
    },
    # The tag selects the representation of labels that this version of Thanos is written for.
    "thanos": {"Thanos 0.40.1": Build(PINNED / "thanos-v0.40.1", tuple(_THANOS), _THANOS, tags="slicelabels")},
}


def headscale() -> Path:
    """Return headscale."""
    return _built(_BUILDS["tailnet"]["headscale"]) / "headscale"


def tailscalesd() -> Path:
    """Return tailscalesd."""
    return _built(_BUILDS["tailnet"]["tailscalesd"]) / "tailscalesd"


def tailscaled(version: str) -> Path:
    """Return tailscaled of a version; `tailscale` is beside it."""
    return _built(_BUILDS["tailnet"][f"tailscaled {version}"]) / "tailscaled"


def newer_scraper(name: str) -> Path:
    """Return the newer prometheus, victoria-metrics, vmagent, vmalert, vmalert-tool or vmauth.

    Raises:
        NotBuiltError: it is not built yet.
    """
    for build in _BUILDS["scrapers"].values():
        found = _place(build) / name
        if name in build.programs and found.exists():
            return found
    raise NotBuiltError(f"a newer {name} is not built: make test-web builds it")


def agent_program(name: str) -> Path:
    """Return victoria-logs, vlagent or loki.

    Raises:
        NotBuiltError: it is not built yet.
    """
    for build in (*_BUILDS["agents"].values(), *_BUILDS["loki"].values()):
        found = _place(build) / name
        if name in build.programs and found.exists():
            return found
    raise NotBuiltError(f"{name} is not built: make test-stack builds it")


def front_program(name: str) -> Path:
    """Return the newer caddy, or traefik or oauth2-proxy.

    Raises:
        NotBuiltError: it is not built yet.
    """
    for build in (*_BUILDS["fronts"].values(), *_BUILDS["traefik"].values()):
        found = _place(build) / name
        if name in build.programs and found.exists():
            return found
    raise NotBuiltError(f"{name} is not built: make test-fronts builds it")


def exporter(name: str) -> Path:
    """Return blackbox_exporter, systemd_exporter or smartctl_exporter.

    Raises:
        NotBuiltError: it is not built yet.
    """
    for build in _BUILDS["exporters"].values():
        found = _place(build) / name
        if name in build.programs and found.exists():
            return found
    raise NotBuiltError(f"{name} is not built: make test-stack builds it")


def alerting_program(name: str) -> Path:
    """Return the newer alertmanager or amtool, or the envsubst through which NixOS passes the config.

    Raises:
        NotBuiltError: it is not built yet.
    """
    for build in _BUILDS["alerting"].values():
        found = _place(build) / name
        if name in build.programs and found.exists():
            return found
    raise NotBuiltError(f"{name} is not built: make test-nixos builds it")


def thanos() -> Path:
    """Return thanos.

    Raises:
        NotBuiltError: it is not built yet.
    """
    found = _place(_BUILDS["thanos"]["Thanos 0.40.1"]) / "thanos"
    if not found.exists():
        raise NotBuiltError("thanos is not built: make test-stack builds it")
    return found


def build_all(group: str, say: Callable[[str], object] | None = None) -> None:
    """Build what is missing of a group; announce each build, because it takes minutes.

    Raises:
        NotBuiltError: one could not be built.
    """
    for called, build in _BUILDS[group].items():
        if say is not None and not _place(build).exists():
            say(f"building {called} with go, once, into {cache()}")
        _built(build)


@functools.cache
def go_version() -> str:
    """Return Go's version text.

    Raises:
        NoGoError: it is missing, or older than 1.21 and cannot fetch the Go that a module needs.
    """
    go = shutil.which("go")
    if go is None:
        raise NoGoError("go is not on PATH, and builds the programs of the tests")
    said = subprocess.run([go, "version"], capture_output=True, check=False, text=True, cwd="/").stdout.strip()
    found = re.search(r"go1\.(\d+)", said)
    if found is None or int(found[1]) < _GO_MINOR:
        raise NoGoError(
            f"{said or 'a go that says nothing'} builds neither tailscaled nor headscale: 1.{_GO_MINOR} does"
        )
    return said


def _place(build: Build) -> Path:
    """Return the directory of the programs built from these locks by this Go."""
    made_of = [(build.pinned / file).read_bytes() for file in ("go.mod", "go.sum")]
    made_of += [part.encode() for part in (go_version(), build.tags, *build.packages.values())]
    key = hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]
    return cache() / f"{build.pinned.name}-{key}"


def _built(build: Build) -> Path:
    place = _place(build)
    if not place.exists():
        _build(build, place)
    return place


def _build(build: Build, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".build-") as made:
            fresh = Path(made) / "programs"
            fresh.mkdir()
            for name in build.programs:
                _go_build(build, name, fresh / name)
            if "tailscaled" in build.programs:
                (fresh / "tailscale").symlink_to("tailscaled")
            fresh.rename(place)
    except OSError as error:
        if not place.exists():  # else another process built it meanwhile
            raise NotBuiltError(f"{build.pinned.name} cannot be kept in {cache()}: {error.strerror}") from error


def _go_build(build: Build, name: str, target: Path) -> None:
    pinned = build.pinned
    command = ["go", "build", "-mod=readonly", "-modcacherw", "-tags", build.tags]
    command += ["-o", str(target), build.packages[name]]
    try:
        done = subprocess.run(command, cwd=pinned, capture_output=True, text=True, timeout=_BUILD_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotBuiltError(f"{pinned.name} was not built within {_BUILD_S} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or "no word").splitlines()[-1]
        raise NotBuiltError(f"{pinned.name} could not be built: {last}")


def _main(group: str) -> None:
    """Build what is missing; failures are reported by the tests."""
    with contextlib.suppress(NotBuiltError):
        build_all(group, lambda line: print(line, flush=True))  # noqa: T201 - somebody waits for minutes


if __name__ == "__main__":
    _main(sys.argv[1])
