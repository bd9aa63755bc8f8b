"""The NixOS module under evalModules: what it renders is a config that Python takes, and a unit that systemd ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.inventory.clan.service import LISTS
from tests.support.fleet import inventory
from tests.support.nix import machine, nixpkgs_lib, stored, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

ROOT = Path(__file__).resolve().parent.parent
STATIC = 'settings.backends.static.lab.targets.node = [ "10.0.0.5:9100" ];'


def nixos(options: str) -> dict[str, Json]:
    """Return what a machine with these options of `services.clan-discovery` has."""
    found = machine(
        f"""let c = t.nixos [ {ROOT}/nix/nixos {{ services.clan-discovery = {{ enable = true; {options} }}; }} ];
        in {{
          failed = t.failed c;
          units = c.systemd;
          config = c.environment.etc."clan-discovery/config.json".source;
          users = c.users;
        }}"""
    )
    assert isinstance(found, dict)
    return found


def rendered(options: str) -> dict[str, Json]:
    """Return the config as the build writes it, checked or not."""
    source = nixos(options)["config"]
    assert isinstance(source, str)
    # A checked one is the script that checks, with the file in it.
    found = stored(source.split("--config ", 1)[-1].split("\n", 1)[0] if "!" in source else source)
    assert isinstance(found, dict)
    return found


def test_the_config_is_what_python_takes(tmp_path: Path, run: Run) -> None:
    """Typed and free keys alike; what was not said is not written."""
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["db", "monitor"])))
    config = rendered(
        f"""settings = {{
          inventory.file = {text(str(tmp_path / "inventory.json"))};
          server = "monitor";
          backends.tailscale.tailnet.tags = [ "server" ];
          backends.dns.lan.domain = "lan.example.org";
          exporters.node.labels.site = "home";
          policy = {{ max_age = "2d"; shrink_after.rounds = null; offline_tags.roaming.grace = "30m"; }};
        }};"""
    )
    assert config["backends"] == {
        "dns": {"lan": {"domain": "lan.example.org"}},
        "tailscale": {"tailnet": {"tags": ["server"]}},
    }
    assert config["inventory"] == {"file": str(tmp_path / "inventory.json")}
    assert config["exporters"] == {"node": {"labels": {"site": "home"}}}
    assert config["policy"] == {
        "max_age": "2d",
        "offline_tags": {"roaming": {"grace": "30m"}},
        "shrink_after": {"rounds": None},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run("check", "-c", tmp_path / "config.json")
    assert (done.code, done.err) == (0, done.err), done.err
    assert "backends: tailnet, lan" in done.out


def test_the_build_checks_the_config() -> None:
    """With the program itself; but not where the inventory is a file of run time."""
    checked = nixos(STATIC)["config"]
    assert isinstance(checked, str)
    assert "clan-discovery check --config /nix/store/" in checked
    assert "!" not in str(nixos(f"checkConfig = false; {STATIC}")["config"])
    later = 'settings.inventory.file = "/var/lib/clan/inventory.json";'
    assert "check" not in str(nixos(later)["config"])
    in_store = 'settings.inventory.file = builtins.storeDir + "/x-inventory.json";'
    assert "clan-discovery check" in str(nixos(in_store)["config"])


def test_the_unit_is_the_one_that_systemd_ran() -> None:
    """`tests/test_units.py` runs what unit.nix says; the module says the same."""
    units = nixos(f'mode = "resident"; watchdog = "1s"; {STATIC}')["units"]
    direct = machine(
        f"""(import {ROOT}/tests/nix/unit.nix {{
          program = "/nix/store/00000000000000000000000000000000-clan-discovery";
          config = "CONFIG"; mode = "resident"; watchdog = "1s";
        }}).service"""
    )
    assert isinstance(units, dict)
    match units["services"]:
        case {"clan-discovery": {"serviceConfig": {"ExecStart": str(command), "ExecReload": str(), **rest}, **more}}:
            pass
        case other:
            raise AssertionError(other)
    match direct:
        case {"serviceConfig": {"ExecStart": str(), "ExecReload": str(), **rest_direct}, **more_direct}:
            assert (rest, more) == (rest_direct, more_direct)
        case other:
            raise AssertionError(other)
    assert command.startswith(
        "/nix/store/00000000000000000000000000000000-clan-discovery/bin/clan-discovery run --config"
    )


def test_the_network_is_there_where_it_is_needed() -> None:
    """A socket needs none; DNS, metrics and an inventory whose method nobody knows here do."""

    def private(options: str) -> bool:
        match nixos(options)["units"]:
            case {"services": {"clan-discovery": {"serviceConfig": dict(config)}}}:
                return config.get("PrivateNetwork") is True
            case other:
                raise AssertionError(other)

    assert private("settings.exporters.node.select = { }; settings.backends.tailscale.t = { };")
    assert private(STATIC)
    assert not private('settings.backends.dns.lan.domain = "lan"; ' + STATIC)
    assert not private('mode = "resident"; metrics.listen = "127.0.0.1:1"; ' + STATIC)
    assert not private('settings.inventory.file = "/x.json";')
    assert private('network = false; settings.inventory.file = "/x.json";')


def test_python_knows_every_list_of_the_service() -> None:
    """What the interface declares as a list concatenates in Python's merge, too; everything else there conflicts."""
    found = machine(f"import {ROOT}/docs/options.nix {{ nixpkgsLib = {text(nixpkgs_lib())}; }}")
    assert isinstance(found, dict)
    for role, declared in LISTS.items():
        options = found[role]
        assert isinstance(options, list)
        lists = {str(o["name"]) for o in options if isinstance(o, dict) and "list of" in str(o["type"])}
        top = {name.partition(".")[0] for name in lists}
        assert top == set(declared), role


def test_two_modules_with_one_key_are_one() -> None:
    """The clan service imports the module, and so may the machine."""
    module = f"{ROOT}/nix/nixos"
    on = f"services.clan-discovery = {{ enable = true; {STATIC} }};"

    def assertions(imports: str) -> Json:
        return machine(f"builtins.length (t.nixos [ {{ imports = {imports}; {on} }} ]).assertions")

    assert assertions(f"[ {module} (import {module}) ]") == assertions(f"[ {module} ]")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "settings declares nothing"),
        ("settings.inventory = { };", "needs exactly one of `file` and `flake`"),
        ('settings.inventory.flake = ".";', "inventory.flake cannot be evaluated by the unit"),
        (f'settings.output.directory = "/run/targets"; {STATIC}', "output.directory is /run/targets"),
        (f'settings.output.directory = "/tmp"; {STATIC}', "output.directory is /tmp"),
        (f'metrics.listen = "127.0.0.1:1"; {STATIC}', "metrics.listen is served by the resident mode alone"),
        (f'mode = "resident"; network = false; metrics.listen = "x:1"; {STATIC}', "metrics.listen needs the network"),
        (
            f'network = false; settings.backends.dns.lan.domain = "lan"; {STATIC}',
            "settings.backends.dns (lan) asks DNS",
        ),
    ],
)
def test_assertions_name_the_option_and_the_mend(options: str, said: str) -> None:
    """Exactly one, and it says what to write."""
    failed = nixos(options)["failed"]
    assert isinstance(failed, list)
    assert len(failed) == 1, failed
    assert said in str(failed[0])
    assert str(failed[0]).startswith("services.clan-discovery.")


def test_the_machines_of_the_vm_test(tmp_path: Path, run: Run) -> None:
    """The VM test was not run; its server is at least a configuration, and its config one that Python takes."""
    found = machine(
        f"""let
          node.networking.primaryIPAddress = "192.168.1.1";
          vm = import {ROOT}/nix/vm-test.nix {{ module = {ROOT}/nix/nixos; }};
          c = t.nixos [
            vm.nodes.monitor
            {{
              config._module.args.nodes = {{ monitor = node; db = node; }};
              options.services.dnsmasq = t.lib.mkOption {{ type = t.lib.types.anything; }};
            }}
          ];
        in {{
          failed = t.failed c;
          config = c.services.clan-discovery.settings;
          node = c.services.prometheus.exporters.node.enable;
        }}"""
    )
    match found:
        case {"failed": [], "node": True, "config": {"inventory": {"file": str(file)}, "backends": {"dns": dns}}}:
            (tmp_path / "inventory.json").write_text(json.dumps(stored(file)))
            config: Json = {"inventory": {"file": "inventory.json"}, "server": "monitor", "backends": {"dns": dns}}
            (tmp_path / "config.json").write_text(json.dumps(config))
        case other:
            raise AssertionError(other)
    done = run("check", "-c", tmp_path / "config.json")
    assert done.out == "ok: 2 machines declared, 2 targets expected; jobs: node; backends: fleet\n", done.err
