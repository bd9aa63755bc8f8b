"""The shipped alert rules in vmalert: the cases of tests/data/rules with vmalert-tool, and what real programs load."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.stack.stores import store
from tests.support.programs import eventually, free_port, get, get_json, program, running, scraper_program
from tests.support.rules import FILES, Case, cases, inlined, name_of, needed_by, shipped, write_rules, write_tests

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.stack.scrapers import Which

LONGEST_S: Final = 240.0


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_alerts_fire_when_they_should(case: Case, tmp_path: Path) -> None:
    """As in Prometheus, but for labels that vmalert does not remove."""
    write_rules(tmp_path / "rules.json", needed_by([case]))
    write_tests(tmp_path / "test.json", tmp_path / "rules.json", [case], "vmalert-tool")
    command = [scraper_program("vmalert-tool", "newer"), "unittest", "--disableAlertgroupLabel"]
    done = subprocess.run(
        [*command, "--files", str(tmp_path / "test.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def loaded(url: str) -> dict[str, str]:
    """Return the health of each rule of a program."""
    match get_json(f"{url}/api/v1/rules"):
        case {"data": {"groups": [*groups]}}:
            found: dict[str, str] = {}
            for group in groups:
                match group:
                    case {"rules": [*rules]}:
                        for rule in rules:
                            assert isinstance(rule, dict)
                            found[str(rule["name"])] = f"{rule['health']} {rule.get('lastError', '')}".strip()
                    case other:
                        raise AssertionError(other)
            return found
        case other:
            raise AssertionError(other)


ALL: Final = {name_of(rule): "ok" for rule in shipped()}


@pytest.mark.parametrize("which", ["debian", "newer"])
def test_prometheus_loads_and_evaluates_the_files(which: Which, tmp_path: Path) -> None:
    for file in FILES:
        shutil.copy(file, tmp_path)
    quick: Json = {"evaluation_interval": "1s"}
    (tmp_path / "prometheus.json").write_text(json.dumps({"global": quick, "rule_files": ["*.yml"]}))
    # A group with an interval of its own is evaluated once in that time.
    late = {"MachineSilent"}
    with store("prometheus", which, tmp_path) as url:
        expected = {name: health for name, health in ALL.items() if name not in late}
        eventually(
            "each rule is evaluated",
            lambda: {name: health for name, health in loaded(url).items() if name not in late} == expected,
            LONGEST_S,
        )
        assert set(loaded(url)) == set(ALL)


@pytest.mark.parametrize("which", ["debian", "newer"])
@pytest.mark.parametrize("records", [True, False], ids=["records", "inlined"])
def test_vmalert_loads_and_evaluates_the_files(which: Which, records: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """With recording rules if it has a store for them; else they are in the expressions."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with store("victoria-metrics", which, tmp_path) as data:
        command = [scraper_program("vmalert", which), f"-datasource.url={data}", "-notifier.url=http://127.0.0.1:9"]
        command += [f"-httpListenAddr=127.0.0.1:{port}", "-evaluationInterval=1s"]
        if records:
            command += [f"-rule={file}" for file in FILES]
            command += [f"-remoteWrite.url={data}"]
        else:
            rules = inlined(shipped())
            document = {"groups": [{"name": "all", "rules": rules}]}
            (tmp_path / "rules.json").write_text(json.dumps(document))
            command += [f"-rule={tmp_path}/rules.json"]
        with running([program("setpriv"), "--pdeathsig", "KILL", *command], tmp_path / "vmalert.log"):
            eventually("vmalert answers", lambda: bool(get(f"{url}/health")), LONGEST_S)
            expected = ALL if records else {name: "ok" for name in ALL if not name.startswith("clan:")}
            eventually("each rule is evaluated", lambda: loaded(url) == expected, LONGEST_S)
