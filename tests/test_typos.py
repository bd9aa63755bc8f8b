"""Typos in tags, keys and settings are reported with a suggestion."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.config.load import load_config
from clan_discovery.inventory.clan.declare import Options, declare
from clan_discovery.inventory.clan.keys import (
    AGENT_OPTIONS,
    EXPORTER_OPTIONS,
    FRONT_OPTIONS,
    INSTANCE_KEYS,
    INVENTORY_KEYS,
    LOGS_OPTIONS,
    MACHINE_KEYS,
    MEMBER_KEYS,
    META_KEYS,
    MODULE_KEYS,
    ROLE_KEYS,
    SERVER_OPTIONS,
    STORAGE_OPTIONS,
    Misspellings,
)
from clan_discovery.inventory.clan.wire import parse_inventory
from clan_discovery.syntax.suggest import did_you_mean
from tests.conftest import ROOT
from tests.support.fleet import inventory, node, status
from tests.support.programs import checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clan_discovery.inventory.clan.keys import Keys
    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

KINDS = (
    AGENT_OPTIONS,
    EXPORTER_OPTIONS,
    FRONT_OPTIONS,
    INSTANCE_KEYS,
    INVENTORY_KEYS,
    LOGS_OPTIONS,
    MACHINE_KEYS,
    MEMBER_KEYS,
    META_KEYS,
    MODULE_KEYS,
    ROLE_KEYS,
    SERVER_OPTIONS,
    STORAGE_OPTIONS,
)


def warnings_of(document: Json) -> list[tuple[str, str | None]]:
    """Read an inventory; return the path and the hint of each warning."""
    found = declare(parse_inventory(json.dumps(document).encode(), "i"), Options())
    assert {problem.severity for problem in found.problems} <= {"warning"}
    return [(problem.where.removeprefix("i: "), problem.hint) for problem in found.problems]


def instance(**roles: Json) -> Json:
    """Return the instances of an inventory with one instance of the service."""
    return {"mon": {"module": {"name": "prometheus"}, "roles": roles}}


def suggested(keys: Keys, *given_keys: str) -> list[str]:
    """Return the suggestions for the keys of an object."""
    return [hint for _, hint in Misspellings().among(given_keys, keys)]


@pytest.mark.parametrize(
    ("change", "place", "key"),
    [
        ({"machines": {"db": {"tag": ["x"]}}}, "machines.db.tag", "tags"),
        ({"machines": {"db": {"machineclass": "darwin"}}}, "machines.db.machineclass", "machineClass"),
        ({"tag": {"x": ["db"]}}, "tag", "tags"),
        ({"meta": {"domian": "lan"}}, "meta.domian", "domain"),
        ({"instances": {"prometheus": {"role": {}}}}, "instances.prometheus.role", "roles"),
        (
            {"instances": {"prometheus": {"module": {"nmae": "x"}}}},
            "instances.prometheus.module.nmae",
            "name",
        ),
        ({"instances": instance(exporter={"setings": {}})}, "instances.mon.roles.exporter.setings", "settings"),
        (
            {"instances": instance(exporter={"machines": {"db": {"setting": {}}}})},
            "instances.mon.roles.exporter.machines.db.setting",
            "settings",
        ),
        (
            {"instances": instance(exporter={"tags": ["all"], "settings": {"exportrs": {"node": {}}}})},
            "instances.mon.roles.exporter.machines.db.settings.exportrs",
            "exporters",
        ),
        (
            {"instances": instance(exporter={"tags": ["all"], "settings": {"exporters": {"node": {"prot": 1}}}})},
            "instances.mon.roles.exporter.machines.db.settings.exporters.node.prot",
            "port",
        ),
        (
            {"instances": instance(server={"machines": {"db": {"settings": {"discoverMethod": "dns"}}}})},
            "instances.mon.roles.server.machines.db.settings.discoverMethod",
            "discoveryMethod",
        ),
        (
            {"instances": instance(agent={"machines": {"db": {"settings": {"scrapeIntervall": "30s"}}}})},
            "instances.mon.roles.agent.machines.db.settings.scrapeIntervall",
            "scrapeInterval",
        ),
        (
            {"instances": instance(logs={"machines": {"db": {"settings": {"retentoin": "30d"}}}})},
            "instances.mon.roles.logs.machines.db.settings.retentoin",
            "retention",
        ),
    ],
)
def test_a_misspelt_key_is_a_warning(change: dict[str, Json], place: str, key: str) -> None:
    """With its path and the right key; never an error."""
    document: dict[str, Json] = {"machines": {"db": {}}, "instances": {}, **change}
    assert (place, f"did you mean '{key}'?") in warnings_of(document)


@given(st.sampled_from(KINDS), st.data())
def test_a_dropped_or_doubled_letter_is_suggested(keys: Keys, data: st.DataObject) -> None:
    """For any key that is read, unless the result is itself a known key."""
    word = data.draw(st.sampled_from([read for read in keys.read if len(read) > 3]))
    place = data.draw(st.integers(0, len(word) - 1))
    times = data.draw(st.sampled_from([0, 2]))
    typo = word[:place] + word[place] * times + word[place + 1 :]
    if typo not in keys.known:
        assert suggested(keys, *keys.read, typo)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (EXPORTER_OPTIONS, ["host", "targets", "paths", "openFirewall", "user", "configFile", "name", "node", "url"]),
        (SERVER_OPTIONS, ["globalConfig", "extraArgs", "checkConfig", "enableAgentMode", "package", "stateDir"]),
        (MACHINE_KEYS, ["name", "description", "icon", "installedAt", "deploy", "system", "addresses", "network"]),
        (ROLE_KEYS, ["extraModules"]),
        (META_KEYS, ["name", "description", "icon"]),
        (INVENTORY_KEYS, ["modules", "services", "templates", "assertions", "_module"]),
    ],
)
def test_foreign_keys_give_no_warning(keys: Keys, names: list[str]) -> None:
    """Options of NixOS, keys of clan, and unrelated keys."""
    assert suggested(keys, *names, *keys.known) == []


def test_options_of_nixos_give_no_warning() -> None:
    """Every option that nixpkgs' modules declare for an exporter and for a server."""
    services = Path(checkout("NIXPKGS")) / "nixos/modules/services"
    exporters = services / "monitoring/prometheus"
    others = ("databases/victoriametrics.nix", "monitoring/vmagent.nix")
    servers = [exporters / "default.nix", *(services / other for other in others)]
    for keys, files in (
        (EXPORTER_OPTIONS, [exporters / "exporters.nix", *exporters.glob("exporters/*.nix")]),
        (SERVER_OPTIONS, servers),
    ):
        # Four spaces: options of the module itself. Deeper ones, and those before `options`, are in submodules, which
        # are not checked.
        texts = [file.read_text().rpartition("\n  options.services.prometheus = {\n")[2] for file in files]
        found = {name for text in texts for name in re.findall(r"^ {4}(\w+) = (?:lib\.)?mk\w*Op", text, re.MULTILINE)}
        assert len(found) > 10
        assert suggested(keys, *found) == []


def test_options_of_the_clan_service_are_known() -> None:
    """Every option that nix/clan-service/interface.nix declares for a role."""
    text = (ROOT / "nix/clan-service/interface.nix").read_text()
    parts = dict(zip(*[iter(re.split(r"\n  (\w+) =\n    \{", text)[1:])] * 2, strict=True))
    for keys, part in (
        (SERVER_OPTIONS, parts["server"]),
        (EXPORTER_OPTIONS, parts["exporter"]),
        (FRONT_OPTIONS, parts["front"]),
        (AGENT_OPTIONS, parts["agent"]),
        (LOGS_OPTIONS, parts["logs"]),
    ):
        declared = re.findall(r"^ {8}(\w+) = (?:mkOption|interfaces lib|list lib|\{$)", part, re.MULTILINE)
        assert declared
        assert set(declared) <= keys.known


def test_each_misspelt_key_is_compared_once_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison takes 100 microseconds. Keys beyond the limit are not checked."""
    compared: list[str] = []

    def count(word: str, known: Sequence[str], ratio: float) -> str | None:
        compared.append(word)
        return did_you_mean(word, known, ratio)

    monkeypatch.setattr("clan_discovery.inventory.clan.keys.did_you_mean", count)
    one_word: Json = {"machines": {f"m{n}": {"tag": []} for n in range(3000)}, "instances": {}}
    assert len(warnings_of(one_word)) == 3001  # and that there is no instance
    assert compared == ["tag"]
    many_words: Json = {"machines": {f"m{n}": {f"machineClass{n}": []} for n in range(3000)}, "instances": {}}
    assert 1 < len(warnings_of(many_words)) < 3000
    assert len(compared) < 3000


CONFIG = """\
inventory: {file: inventory.json}
policy:
  offline_tags:
    srever: drop
    server: keep
    edge: keep
    darwin: keep
    tag:phone: drop
    laptop: drop
backends: {tailscale: {tailnet: {status_file: status.json}}}
exporters: {node: {select: {tags: [laptop]}}}
output: {directory: targets}
"""


def place(directory: Path, config: str = CONFIG) -> Path:
    """Write a config, an inventory with the tags `server` and `edge`, and a status; return the config."""
    document = inventory({"monitor": {}, "db": {"tags": ["server"]}, "web": {}}, tags={"edge": []})
    (directory / "inventory.json").write_text(json.dumps(document))
    nodes = [node(1, "db"), node(3, "monitor"), node(2, "web", Tags=["tag:laptop", "tag:lamp"])]
    (directory / "status.json").write_text(json.dumps(status(nodes)))
    (directory / "c.yaml").write_text(config)
    return directory / "c.yaml"


def test_an_unknown_inventory_tag_fails_only_check(tmp_path: Path, run: Run) -> None:
    """Tags of machines, declared tags, clan's own and ACL tags are known.

    Other commands warn.
    """
    config = place(tmp_path)
    checked = run("check", "-c", config)
    said = "c.yaml:4:13: policy.offline_tags.srever: the inventory has no tag 'srever' (did you mean 'server'?)"
    assert checked.code == 2
    assert [line for line in checked.err.splitlines() if "no tag" in line] == [f"clan-discovery: {tmp_path}/{said}"]
    for command in ("refresh", "show", "machines", "doctor"):
        done = run(command, "-c", config)
        assert done.code == 0
        assert f"warning: {tmp_path}/{said}" in done.err
    place(tmp_path, CONFIG.replace("srever", "roaming"))
    assert "(if it is an ACL tag, write 'tag:roaming')" in run("check", "-c", config).err
    place(tmp_path, CONFIG.replace("srever", "nixos"))
    assert run("check", "-c", config).code == 0


def test_an_unknown_roaming_tag_fails_only_check(tmp_path: Path, run: Run) -> None:
    """Those of the default, `roaming` and `laptop`, need not exist. An ACL tag does not help."""
    tags = "roaming_tags: [laptop, servre, sofa]"
    config = place(
        tmp_path, CONFIG.replace("  offline_tags:\n", f"  {tags}\n  offline_tags:\n").replace("srever", "all")
    )
    checked = run("check", "-c", config)
    assert checked.code == 2
    assert [line.partition("policy.")[2] for line in checked.err.splitlines() if "no tag" in line] == [
        "roaming_tags.1: the inventory has no tag 'servre' (did you mean 'server'?)",
        "roaming_tags.2: the inventory has no tag 'sofa'",
    ]
    assert run("show", "-c", config).code == 0


def test_without_an_inventory_every_tag_is_an_acl_tag(tmp_path: Path, run: Run) -> None:
    """So no tag is unknown."""
    config = place(tmp_path, CONFIG.partition("\n")[2])
    assert run("check", "-c", config).code == 0


def test_doctor_warns_of_an_unused_acl_tag(tmp_path: Path, run: Run) -> None:
    """With its position and a suggestion; `check` asks no backend and cannot tell."""
    config = place(tmp_path, CONFIG.replace("srever", "all").replace("tags: [laptop]", "tags: {all: [laptop, lapm]}"))
    done = run("doctor", "-c", config)
    assert done.code == 0
    told = [line for line in done.out.splitlines() if "ACL tag" in line or "did you mean" in line]
    assert told == [
        f"WARN  {tmp_path}/c.yaml:11:50: exporters.node.select.tags.all.1: no node has the ACL tag 'lapm'",
        "      to fix: did you mean 'lamp'?",
        f"WARN  {tmp_path}/c.yaml:8:16: policy.offline_tags.tag:phone: no node has the ACL tag 'phone'",
    ]
    assert run("check", "-c", config).code == 0


def test_doctor_does_not_check_acl_tags_during_an_outage(tmp_path: Path, run: Run) -> None:
    """The tags of the tailnet are unknown."""
    config = place(tmp_path)
    assert run("refresh", "-c", config).code == 0
    (tmp_path / "status.json").write_text("{")
    assert "ACL tag" not in run("doctor", "-c", config).out


def test_the_short_form_of_tags_has_its_position(tmp_path: Path, run: Run) -> None:
    """The error has `tags: [x]` as written, without the `any` of the model."""
    config = place(tmp_path, CONFIG.replace("[laptop]", "[laptpo]").replace("    laptop: drop\n", ""))
    assert load_config(config).config.policy.offline_tags
    assert "exporters.node.select.tags.0: no node has the ACL tag 'laptpo'" in run("doctor", "-c", config).out
