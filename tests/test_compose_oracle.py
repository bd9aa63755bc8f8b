"""Compare what is read from Compose files with `docker-compose config`: variables, merging and `extends`."""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from clan_discovery.inventory.compose.project import ComposeFindings, ComposeProject, load_project
from clan_discovery.inventory.compose.service import ComposeService, network_name
from clan_discovery.syntax.nodes import YamlPart, parse_parts
from tests.support.programs import program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from clan_discovery.inventory.compose.project import Project
    from clan_discovery.model import Json

ENV: Final = """# variables of both files
A=one
export B = 'two words' # a comment
C="x
y"
D=${A}-${B}
EMPTY=
PORT=8443
"""
# Forms that Compose 1.29 has, too.
TEXTS: Final = (
    "plain",
    "$A/${A}",
    "$$A and $${A}",
    "${NO:-default}",
    "${NO-default}",
    "${EMPTY:-default}",
    "${EMPTY-default}",
    "${A:?needed}",
    "${D}",
    "${C}",
    "Host(`${A}.example.org`) || Host(`${NO:-b}.example.org`)",
    "a=b=c",
    "",
)
PORTS: Final[tuple[Json, ...]] = (
    "80",
    "8080:80",
    "127.0.0.1:8081:81",
    "9000-9002:9000-9002",
    "${PORT}:443",
    "53:53/udp",
    {"target": 90, "published": 9090},
    {"target": 91, "published": 9091, "protocol": "tcp"},
)
SERVICES: Final = 30


def service(rolls: random.Random, number: int) -> dict[str, Json]:
    """Return a random service; it extends only services of lower numbers."""
    keys = rolls.sample(range(8), rolls.randint(0, 5))
    labels: dict[str, Json] = {f"traefik.l{key}": rolls.choice(TEXTS) for key in keys}
    found: dict[str, Json] = {"image": "i", "labels": labels}
    if rolls.random() < 0.5:
        found["labels"] = [f"{key}={text}" for key, text in labels.items()]
    if rolls.random() < 0.5:
        found["ports"] = rolls.sample(PORTS, rolls.randint(0, 4))
    if rolls.random() < 0.5:
        found["expose"] = [str(port) for port in rolls.sample(range(1, 6), 2)]
    if rolls.random() < 0.3:
        found["container_name"] = f"c{number}-${{A}}"
    if rolls.random() < 0.6:
        of_service = rolls.sample(["mon", "web", "ext", "old"], 2)
        found["networks"] = list(of_service)
        if rolls.random() < 0.5:
            found["networks"] = {of_service[0]: {"aliases": [f"n{number}", "$B"[:2]]}, of_service[1]: None}
    if number and rolls.random() < 0.3:
        found["extends"] = {"service": f"s{rolls.randrange(number)}"}
    return found


def files(rolls: random.Random) -> tuple[dict[str, Json], dict[str, Json]]:
    """Return a file and one that overrides it. What depends on others is extended by none: Compose refuses that."""
    services: dict[str, Json] = {f"s{number}": service(rolls, number) for number in range(SERVICES)}
    services |= {f"d{number}": {"image": "i", "depends_on": ["s0", f"s{number}"]} for number in range(1, 4)}
    over: dict[str, Json] = {}
    for number in rolls.sample(range(SERVICES), SERVICES // 2):
        changed = service(rolls, number)
        changed.pop("extends", None)
        over[f"s{number}"] = changed
    over["d1"] = {"depends_on": {"s2": {"condition": "service_started"}}}
    networks: dict[str, Json] = {
        "mon": {},
        "web": {"name": "real-$A"},
        "ext": {"external": True},
        "old": {"external": True, "name": "legacy"},
    }
    return {"services": services, "networks": networks}, {"services": over}


def of_oracle(text: str) -> dict[str, dict[str, object]]:
    """Return the services of `docker-compose config`."""
    root = parse_parts(text, "oracle", most=100_000)
    assert root is not None
    top = root.pairs()
    real = {key: real_name(key, part) for key, part in top["networks"].pairs().items()}
    return {name: of_part(part.pairs(), real) for name, part in top["services"].pairs().items()}


def real_name(key: str, part: YamlPart) -> str:
    pairs = part.pairs()
    if "name" in pairs:
        return str(pairs["name"].text)
    return key if "external" in pairs else f"app_{key}"


def of_part(pairs: Mapping[str, YamlPart], real: dict[str, str]) -> dict[str, object]:
    ports: set[tuple[str, str]] = set()
    for item in pairs["ports"].items() if "ports" in pairs else ():
        if item.is_mapping:
            port = item.pairs()
            if port.get("protocol") is None or port["protocol"].text != "udp":
                ports.add((str(port["target"].text), str(port["published"].text) if "published" in port else ""))
        elif not str(item.text).endswith("/udp"):
            before, _, target = str(item.text).removesuffix("/tcp").rpartition(":")
            ports.add((target, before.removeprefix("0.0.0.0:")))
    networks: dict[str, set[str]] = {"app_default": set()}
    if "networks" in pairs:
        networks = {}
        for key, part in pairs["networks"].pairs().items():
            aliases = part.pairs().get("aliases")
            networks[real[key]] = set()
            if aliases is not None:
                networks[real[key]] = {str(alias.text) for alias in aliases.items()}
    labels: Mapping[str, YamlPart] = {}
    if "labels" in pairs:
        labels = pairs["labels"].pairs()
    return {
        "labels": {key: (part.text or "").replace("$$", "$") for key, part in labels.items()},
        "container": pairs["container_name"].text if "container_name" in pairs else "",
        "networks": networks,
        "ports": ports,
        "expose": {part.text for part in pairs["expose"].items()} if "expose" in pairs else set(),
        "needs": set(pairs["depends_on"].pairs()) if "depends_on" in pairs else set(),
    }


def ours(project: Project) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for name, fields in project.services.items():
        read = ComposeService(name, project, fields)
        ports = {
            (
                str(port.target + offset),
                f"{f'{port.ip}:' if port.ip else ''}{port.first + offset if port.first else ''}",
            )
            for port in read.published
            for offset in range(port.count)
        }
        found[name] = {
            "labels": {key: label.text for key, label in read.labels.items()},
            "container": read.container_name,
            "networks": {network: set(aliases) for network, aliases in read.networks.items()},
            "ports": ports,
            "expose": set(fields.keys("expose")),
            "needs": set(read.depends_on),
        }
    return found


@pytest.mark.parametrize("seed", range(2))
def test_merged_services_are_those_of_compose(tmp_path: Path, seed: int) -> None:
    """Of Compose 1.29, with only what it has; 30 random services in two files, some of which extend others."""
    place = tmp_path / "app"
    place.mkdir()
    for name, document in zip(("compose.yaml", "over.yaml"), files(random.Random(seed)), strict=True):  # noqa: S311
        (place / name).write_text(json.dumps(document))
    (place / ".env").write_text(ENV)
    words = [program("docker-compose"), "-f", "compose.yaml", "-f", "over.yaml", "config"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    findings = ComposeFindings()
    given = ComposeProject(files=tuple(str(place / name) for name in ("compose.yaml", "over.yaml")))

    def read(path: str, _: str) -> bytes:
        return (place / path).read_bytes()

    found = ours(load_project(given, read, findings))
    assert found == of_oracle(done.stdout)
    assert network_name(load_project(given, read, findings), "web") == "real-one"
    assert not findings.problems
