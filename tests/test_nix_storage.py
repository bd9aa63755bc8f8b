"""The role `storage` in Nix: what evalModules gives (tests/nix/storage-tests.nix), and that it is what `show` says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from tests.support.nix import ROOT, at, failing, listed, nixpkgs_lib, quoted, stored, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

SETTINGS: Final[dict[str, Json]] = {
    "victoriametrics": {"port": 8500},
    "a shard": {"mode": "shard", "replicas": 3, "dedupInterval": "15s"},
    "thanos": {"engine": "thanos", "readPort": 11901},
    "cluster": {"engine": "victoriametrics-cluster", "replicas": 3, "dedupInterval": "1m"},
    "remote-write": {"engine": "remote-write"},
}

LOCAL: Final[dict[str, list[str]]] = {
    "victoria-metrics": ["-http.maxGracefulShutdownDuration"],
    "vmstorage": ["-httpListenAddr", "-retentionPeriod", "-storageDataPath", "-vminsertAddr", "-vmselectAddr"],
    "vminsert": ["-httpListenAddr"],
    "vmselect": ["-cacheDataPath", "-httpListenAddr"],
    "vmauth": ["-auth.config", "-httpListenAddr"],
    "thanos receive": [
        "--grpc-address",
        "--http-address",
        "--receive.hashrings-file",
        "--remote-write.address",
        "--tsdb.path",
        "--tsdb.retention",
    ],
    "thanos query": ["--grpc-address", "--http-address"],
}
"""The flags that each machine decides for itself."""

# Four nodes, one with an address, and two servers: one writes with vmagent, the other with Prometheus.
CLAN = """
  let
    inherit (t) lib;
    nodes = [ "db1" "db2" "db3" "db4" ];
    member = settings: machine: t.member {
      inherit machine;
      machines = lib.genAttrs (nodes ++ [ "mon1" "mon2" ]) (_: { tags = [ "all" ]; machineClass = "nixos"; });
      exports."clan-core/wireguard:wg::" = { networking.priority = 1000; };
      exports."clan-core/wireguard:wg:peer:db2".peer.hosts = [ { plain = "fd00::2"; } ];
      instances.m = {
        storage = lib.genAttrs nodes (_: settings // { firewallInterfaces = [ ]; });
        server.mon1 = { backend = "vmagent"; firewallInterfaces = [ ]; };
        server.mon2 = {
          backend = if settings.mode or "" == "shard" then "vmagent" else "prometheus";
          firewallInterfaces = [ ];
        };
      };
      modules = [ { services.clan-discovery.storage.clusterPackage = {
        type = "derivation"; name = "cluster"; outPath = "/cluster";
      }; } ];
    };
    started = config: unit: lib.tail (lib.splitString " " (lib.replaceStrings [ "'" ] [ "" ]
      (config.systemd.services or { }).${unit}.serviceConfig.ExecStart or ""));
    plain = map (lib.replaceStrings [ "\\\\\\"" ] [ "\\"" ]);
    seen = _: settings:
      let
        config = member settings;
        inherit (config "mon1") services;
        prometheus = (config "mon2").services.prometheus;
      in {
        failed = map t.failed [ (config "db2") (config "mon1") (config "mon2") ];
        programs = {
          "victoria-metrics" = (config "db2").services.victoriametrics.extraOptions;
          vmstorage = started (config "db2") "vmstorage";
          "thanos receive" = plain ((config "db2").services.thanos.receive.arguments or [ ]);
          "thanos query" = plain (services.thanos.query.arguments or [ ]);
          vmagent = [ "-remoteWrite.url=${services.vmagent.remoteWrite.url}" ] ++ services.vmagent.extraArgs;
          vmauth = started (config "mon1") "clan-discovery-storage";
          vminsert = started (config "mon1") "vminsert";
          vmselect = started (config "mon1") "vmselect";
        };
        prometheus = {
          remote_write = prometheus.remoteWrite;
        };
        settings = lib.genAttrs [ "mon1" "mon2" ] (name:
          lib.filterAttrs (name: _: lib.elem name [ "inventory" "server" "storage" ])
            (config name).services.clan-discovery.settings);
      };
  in lib.mapAttrs seen
"""


def test_storage() -> None:
    """Units, ports, datasources, and each assertion."""
    assert failing("storage-tests.nix") == []


@pytest.fixture(scope="module")
def evaluated() -> Json:
    """Return what Nix writes for each of the settings."""
    library = nixpkgs_lib()
    machine = f"let t = import {ROOT}/tests/nix/machine.nix {{ nixpkgsLib = {library}; }}; in "
    return value(f"{machine} ({CLAN}) {quoted(SETTINGS)}")


def shown(given: Json, server: str, place: Path, run: Run) -> Json:
    """Return what `show` says with the config of a server as Nix writes it."""
    place.mkdir()
    settings = at(given, "settings", server)
    assert isinstance(settings, dict)
    config: dict[str, Json] = {"server": settings["server"]}
    if settings.get("storage"):
        config["storage"] = settings["storage"]
    sources: dict[str, Json] = {}
    for key in ("file", "exports"):
        (place / f"{key}.json").write_text(json.dumps(stored(str(at(settings, "inventory", key)))))
        sources[key] = f"{key}.json"
    config["inventory"] = sources
    (place / "config.json").write_text(json.dumps(config))
    done = run("show", "-c", place / "config.json", "--format", "storage")
    assert done.code == 0, done.err
    document: Json = json.loads(done.out)
    return document


def options(words: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return the flags of these names, sorted by name; those of one name are in the order of the program."""
    wanted = {*names}
    return sorted((word for word in words if name_of(word) in wanted), key=name_of)


def name_of(flag: str) -> str:
    """Return the name of a flag."""
    return flag.partition("=")[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_programs_get_the_flags_that_show_prints(name: str, evaluated: Json, tmp_path: Path, run: Run) -> None:
    """All of them, each once and in the same order of nodes, but those of the machine."""
    given = at(evaluated, name)
    assert at(given, "failed") == [[], [], []]
    document = shown(given, "mon1", tmp_path / "mon1", run)
    compared: list[str] = []
    for program in listed(document, "programs"):
        if at(program, "node") not in ("", "db2"):
            continue
        of = str(at(program, "program"))
        flags = [str(flag) for flag in listed(program, "flags")]
        written = [str(flag) for flag in listed(given, "programs", of)]
        names = {*map(name_of, (*flags, *written))}
        assert {*LOCAL.get(of, ())} <= names
        assert options(written, names - {*LOCAL.get(of, ())}) == options(flags, names)
        compared.append(of)
    assert (
        compared
        == {
            "victoriametrics": ["victoria-metrics", "vmauth", "vmagent"],
            "a shard": ["victoria-metrics", "vmagent"],
            "thanos": ["thanos receive", "thanos query", "vmauth", "vmagent"],
            "cluster": ["vmstorage", "vminsert", "vmselect", "vmagent"],
            "remote-write": ["vmagent"],
        }[name]
    )


@pytest.mark.parametrize("name", ["victoriametrics", "thanos"])
def test_programs_get_the_files_that_show_prints(name: str, evaluated: Json, tmp_path: Path, run: Run) -> None:
    """The config of vmauth, the hashring, and what Prometheus writes to."""
    given = at(evaluated, name)
    files = at(shown(given, "mon2", tmp_path / "mon2", run), "files")
    (config,) = options(map(str, listed(given, "programs", "vmauth")), ["-auth.config"])
    assert stored(config) == yaml.safe_load(str(at(files, "vmauth")))
    written = yaml.safe_load(str(at(files, "remote-write")))
    assert at(given, "prometheus", "remote_write") == written["remote_write"]
    if name == "thanos":
        (ring,) = options(map(str, listed(given, "programs", "thanos receive")), ["--receive.hashrings-file"])
        assert stored(ring) == json.loads(str(at(files, "thanos-hashring")))
