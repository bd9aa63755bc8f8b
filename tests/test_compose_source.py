"""Compose files in a config: the commands, the files that `run` watches, and secrets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.resident.events import Events
from clan_discovery.resident.log import Log
from clan_discovery.resident.notify import Notify
from clan_discovery.resident.plans import Loaded, Plans

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from clan_discovery.round import Plan
    from tests.conftest import Done

    Run = Callable[..., Done]

EXAMPLE: Final = Path(__file__).resolve().parent.parent / "examples/compose"
SECRET: Final = "hunter2"  # noqa: S105 - the mark that the tests look for


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the config of the example, in a directory of its own."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    return tmp_path / "config.yaml"


def test_example_declares_targets_services_and_fronts(config: Path, run: Run) -> None:
    found = json.loads(run("inventory", "-c", config).out)
    assert [(e["machine"], e["type"]) for e in found["exporters"]] == [
        ("nas", "node"),
        ("nas", "postgres"),
        ("nas", "traefik"),
        ("web01", "traefik"),
    ]
    plan = make_plan(load_config(config))
    assert sorted((front.domain, front.machine, front.auth) for front in plan.declared.fronts) == [
        ("blog.example.org", "web01", "none"),
        ("films.home.example.org", "nas", "none"),
        ("prometheus.home.example.org", "nas", "forward"),
        ("www.example.org", "web01", "none"),
    ]
    assert {s.name: s.depends_on for s in plan.declared.services}["postgres-exporter"] == ("database",)


def test_explain_names_the_source_and_its_place(config: Path, run: Run) -> None:
    done = run("explain", "nas", "-c", config)
    assert "compose: services.postgres-exporter of nas" in done.out
    assert f"{config.parent}/compose.yaml:" in done.out


def test_mistake_in_a_label_stops_with_its_place(config: Path, run: Run) -> None:
    file = config.parent / "compose.yaml"
    file.write_text(file.read_text().replace('"8082"', '"99999"'))
    done = run("refresh", "-c", config)
    assert done.code == 2
    assert f"{file}:19:48: prometheus.io/port: '99999' is not a port" in done.err


def test_scraper_that_is_not_there_is_named_with_its_place_in_the_config(config: Path, run: Run) -> None:
    config.write_text(config.read_text().replace("    nas:\n", "    nas:\n      scraper: promethues\n"))
    done = run("check", "-c", config)
    assert done.code == 2
    assert f"{config}:5:16: inventory.compose.nas.scraper: the Compose files have no service" in done.err
    assert "did you mean 'prometheus'?" in done.err


@pytest.mark.parametrize("broken", ["missing", "directory"])
def test_file_that_cannot_be_read(config: Path, run: Run, broken: str) -> None:
    file = config.parent / "compose.override.yaml"
    file.unlink()
    if broken == "directory":
        file.mkdir()
    done = run("check", "-c", config)
    assert done.code == 2
    assert str(file) in done.err
    assert "Traceback" not in done.err


def test_secrets_are_in_no_output(config: Path, run: Run) -> None:
    """Not in those of a config with mistakes either, which quotes what is wrong."""
    (config.parent / ".env").write_text(f"DOMAIN=example.org\nJELLYFIN_API_KEY={SECRET}\nTOKEN='{SECRET}'\n")
    file = config.parent / "compose.yaml"
    text = file.read_text().replace("image: postgres:16", f"image: x\n    environment: [PASSWORD={SECRET}]")
    for written in (text, text.replace('"9187"', '"x"'), text.replace("  database:", "  database: }"), f"{text}\n&"):
        file.write_text(written)
        for command in ("show", "inventory", "check", "explain"):
            words = ["explain", "nas"] if command == "explain" else [command]
            done = run(*words, "-c", config)
            assert SECRET not in done.out + done.err
    file.write_text(text)
    assert SECRET not in run("show", "--format", "json", "-c", config).out


def test_every_file_that_is_read_is_watched(config: Path, tmp_path: Path) -> None:
    """Also a missing one: as soon as it is there, it is read."""
    file = tmp_path / "compose.yaml"
    common = tmp_path / "common/base.yaml"
    loaded = load_config(config)

    def plan(_: object) -> Plan:
        return make_plan(loaded)

    once = Loaded(directories(loaded), plan, files=(), sockets=(), found=lambda: loaded.found)
    with (tmp_path / "log").open("w") as stream:
        plans = Plans(lambda: once, Events(Log(stream), Notify(None)))
        first = plans.newest()
        watched = {str(path.relative_to(tmp_path)): kind for path, kind in once.watched}
        assert watched == {
            ".env": "env file",
            "compose.yaml": "Compose file",
            "compose.override.yaml": "Compose file",
            "web01/blog/.env": "env file",
            "web01/blog/compose.yaml": "Compose file",
            "web01/traefik/.env": "env file",
            "web01/traefik/compose.yaml": "Compose file",
        }
        text = file.read_text().replace("    image: postgres:16", "    extends: {file: common/base.yaml, service: db}")
        file.write_text(text)
        assert plans.newest() is first  # the file that it names is missing
        assert (common, "Compose file") in once.watched
        common.parent.mkdir()
        common.write_text("services: {db: {x-clan-discovery: {type: systemd}, network_mode: host}}")
        second = plans.newest()
        assert {e.exporter.type for e in second.declared.expected} - {
            e.exporter.type for e in first.declared.expected
        } == {"systemd"}


def test_the_same_machine_in_a_clan_and_in_compose_files(config: Path, tmp_path: Path, run: Run) -> None:
    """Its names may differ in case; both sources add targets."""
    settings: Json = {"exporters": {"systemd": {}}}
    roles: Json = {"exporter": {"machines": {"NAS": {"settings": settings}}}}
    instance: Json = {"module": {"name": "prometheus"}, "roles": roles}
    document: Json = {"machines": {"NAS": {"tags": ["home"]}}, "instances": {"monitoring": instance}}
    (tmp_path / "inventory.json").write_text(json.dumps(document))
    config.write_text(config.read_text().replace("inventory:\n", "inventory:\n  file: inventory.json\n"))
    done = run("show", "-c", config, "--format", "json")
    targets = json.loads(done.out)["targets"]
    assert {target["job"] for target in targets if target["machine"] == "NAS"} == {
        "node",
        "postgres",
        "systemd",
        "traefik",
    }
