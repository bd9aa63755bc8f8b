"""Regression tests: each of these once lost a target, said something false, or ended in a stack trace."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.publish.lock import locked
from clan_discovery.publish.state import State
from clan_discovery.syntax.endpoint import split_endpoint
from tests.support.fleet import SUFFIX, fleet, inventory, node, status
from tests.support.programs import promtool_accepts

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

SELECT = """\
backends: {tailscale: {tailnet: {status_file: status.json}}}
exporters: {node: {select: {tags: [server]}}}
output: {directory: targets}
"""
DECLARED = """\
inventory: {file: inventory.json}
backends: {tailscale: {tailnet: {status_file: status.json}}}
output: {directory: targets}
"""
PROGRAM = str(Path(sys.executable).with_name("clan-discovery"))


def world(place: Path, config: str, seen: Json, declared: Json = None) -> Path:
    """Write a config, a status and an inventory; return the config."""
    (place / "config.yaml").write_text(config)
    (place / "status.json").write_text(json.dumps(seen))
    (place / "inventory.json").write_text(json.dumps(declared))
    return place / "config.yaml"


def addresses(place: Path, job: str = "node") -> dict[str, str]:
    """Return what is published."""
    groups = json.loads((place / "targets" / f"{job}.json").read_bytes())
    return {g["labels"]["instance"]: g["targets"][0] for g in groups}


def test_a_state_directory_that_is_somebody_elses_loses_nothing(tmp_path: Path, run: Run) -> None:
    """Only files that we prepared are ever removed, and no symlink is followed to them."""
    config = world(tmp_path, SELECT + "state: .\n", fleet(["a"]))
    for name in ("tmp", "publishing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("x")
    (tmp_path / "publishing" / "deep").mkdir()
    assert run("refresh", "-c", config).code == 0
    assert (tmp_path / "tmp/thesis.txt").read_text() == "x"
    assert (tmp_path / "publishing/thesis.txt").read_text() == "x"
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/a.json").write_text("x")
    (tmp_path / "s").mkdir()
    (tmp_path / "s/publishing").symlink_to(tmp_path / "precious")
    world(tmp_path, SELECT + "state: s\n", fleet(["b"]))
    assert run("refresh", "-c", config).code == 0
    assert [f.name for f in (tmp_path / "precious").iterdir()] == ["a.json"]


@pytest.mark.parametrize("lost", ["nothing", "state", "index", "family", "name", "directory"])
def test_what_a_rule_picked_outlives_an_outage_whatever_is_lost_with_it(tmp_path: Path, run: Run, lost: str) -> None:
    """The memory, or the ways in which a memory is not the right one: the published file still stands."""
    names = ["a", "b", "c"]
    config = world(tmp_path, SELECT, fleet(names))
    assert run("refresh", "-c", config).code == 0
    before = addresses(tmp_path)
    (tmp_path / "status.json").write_text('{"BackendState": "NeedsLogin"}')
    match lost:
        case "state":
            for file in (tmp_path / "targets.state").glob("*.json"):
                file.unlink()
        case "index":
            (tmp_path / "targets.state/index.json").write_text("garbage")
        case "family":
            config.write_text(SELECT.replace("status.json}", "status.json, family: any}"))
        case "name":
            config.write_text(SELECT.replace("tailnet:", "home:"))
        case "directory":
            elsewhere = subprocess.run(
                [PROGRAM, "refresh", "-c", "config.yaml"], cwd=tmp_path, capture_output=True, check=False
            )
            assert elsewhere.returncode == 3
        case _:
            pass
    assert run("refresh", "-c", config).code == 3
    assert addresses(tmp_path) == before
    promtool_accepts(tmp_path / "targets")
    (tmp_path / "status.json").write_text(json.dumps(fleet(["a", "b"])))
    config.write_text(SELECT)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"a", "b"}  # proven gone is gone at once


def test_the_shrink_guard_holds_from_any_directory(tmp_path: Path, run: Run) -> None:
    """A backend is known by its absolute path."""
    names = ["monitor", "a", "b", "c", "d"]
    config = world(tmp_path, DECLARED, fleet(names), inventory(names))
    assert run("refresh", "-c", config).code == 0
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    done = subprocess.run([PROGRAM, "refresh", "-c", "config.yaml"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 4


def test_a_table_is_cut_nowhere(tmp_path: Path, run: Run) -> None:
    """Long names, a pipe, a narrow terminal."""
    name, suffix = "buildserver-frankfurt-01", "a-very-long-name-of-a-tailnet.headscale.example.org"
    tailnet: Json = {"Name": "x", "MagicDNSSuffix": suffix, "MagicDNSEnabled": True}
    seen = status([node(1, "monitor", DNSName=f"monitor.{suffix}.")], CurrentTailnet=tailnet)
    config = world(tmp_path, DECLARED, seen, inventory([name, "monitor"]))
    out = run("show", "-c", config).out
    assert f"node  {name}  {name}.{suffix}:9100  missing  -\n" in out
    assert out.startswith("JOB   INSTANCE")


def test_the_state_cannot_be_in_the_output_directory(tmp_path: Path, run: Run) -> None:
    """Prometheus would read it as targets."""
    config = world(tmp_path, SELECT + "state: ./targets\n", fleet(["a"]))
    done = run("check", "-c", config)
    assert done.code == 2
    assert "config.yaml:4:8: state: the state cannot be in the output directory" in done.err


def test_an_umask_hides_nothing_from_prometheus(tmp_path: Path, run: Run) -> None:
    """Directories that we make are 0755, files 0644."""
    config = world(tmp_path, SELECT.replace("targets}", "new/targets}"), fleet(["a"]))
    old = os.umask(0o077)
    try:
        assert run("refresh", "-c", config).code == 0
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "new/targets").stat().st_mode & 0o777 == 0o755


def test_a_directory_where_a_file_belongs_stops_the_whole_round(tmp_path: Path, run: Run) -> None:
    """It is named, and no other file is written."""
    declared = inventory(["monitor"])
    config = world(tmp_path, DECLARED + "exporters: {nginx: {select: {}}}\n", fleet(["monitor"]), declared)
    (tmp_path / "targets/node.json").mkdir(parents=True)
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert "node.json is a directory" in done.err
    assert [f.name for f in (tmp_path / "targets").glob("[!.]*")] == ["node.json"]


def test_refreshers_of_several_outputs_may_share_a_state(tmp_path: Path) -> None:
    """Four at once, ten rounds each, one state directory: no round fails."""
    config = world(tmp_path, SELECT + "state: s\n", fleet([f"m{n}" for n in range(50)]))
    codes: list[int] = []

    def loop(number: int) -> None:
        words = [PROGRAM, "refresh", "-q", "-c", str(config), "--output", str(tmp_path / f"o{number}/targets")]
        for _ in range(5):
            (tmp_path / f"o{number}/targets/node.json").unlink(missing_ok=True)
            codes.append(subprocess.run(words, capture_output=True, check=False).returncode)

    threads = [threading.Thread(target=loop, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 20


def test_an_impostor_is_not_scraped_by_the_back_door(tmp_path: Path, run: Run) -> None:
    """A node without the demanded tag: its MagicDNS name leads to that very node, so the target stands elsewhere."""
    seen = status([node(1, "monitor"), node(2, "db", Tags=None)])
    text = DECLARED.replace("status.json}", "status.json, tags: [server]}")
    config = world(tmp_path, text, seen, inventory(["monitor", "db"]))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path) == {"db": "db.home.arpa:9100", "monitor": "100.64.0.1:9100"}
    assert "has a node of the name, but it bears none of the ACL tags" in run("explain", "db", "-c", config).out
    assert "refused" in run("show", "-c", config).out


def test_a_conflict_is_told_at_every_refresh(tmp_path: Path, run: Run) -> None:
    """Two nodes of one name: a warning, not a machine that is merely missing."""
    config = world(tmp_path, DECLARED, status([node(1, "monitor"), node(2, "db"), node(3, "db")]), inventory(["db"]))
    done = run("refresh", "-c", config)
    assert "warning: db: ambiguous: 2 nodes claim the name" in done.err
    assert "missing" not in done.out
    assert "missing" not in run("explain", "db", "-c", config).out


def test_a_rule_invents_no_host(tmp_path: Path, run: Run) -> None:
    """A node without an address of the family is excluded, with the way out."""
    seen = status([node(1, "a"), node(2, "six", TailscaleIPs=["fd7a:115c:a1e0::6"])])
    config = world(tmp_path, SELECT, seen)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"a"}
    assert "excluded (node): no_address: it has no IPv4 address" in run("explain", "six", "-c", config).out


def test_a_machine_whose_name_is_no_host_stays_a_target_and_is_told_at_every_refresh(tmp_path: Path, run: Run) -> None:
    """And a label that cannot be written is an error before anything is emptied."""
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor", "a b"]))
    done = run("refresh", "-c", config)
    assert done.code == 0
    assert "no names in DNS, so their targets are down: 'a b' at a-b-806c5cd3.invalid (rename the machine" in done.err
    before = addresses(tmp_path)
    assert before == {"a b": "a-b-806c5cd3.invalid:9100", "monitor": "100.64.0.1:9100"}
    wrongs: list[tuple[dict[str, Json], str]] = [
        ({"labels": {"rack-no": "1"}}, "'rack-no' is no label name"),
        ({"params": {"collect[]": "cpu"}}, "set it in the scrape config"),
        ({"labels": {"__address__": "x"}}, "is reserved"),
    ]
    for wrong, said in wrongs:
        (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"], exporter=wrong)))
        done = run("refresh", "-c", config)
        assert done.code == 2
        assert said in done.err
        assert addresses(tmp_path) == before


@pytest.mark.parametrize(
    ("extra", "jobs"),
    [
        ("backends: {static: {l: {targets: {ext: ['x:1']}}}}", ["ext"]),
        ("exporters: {systemd: {select: {}}}", ["systemd"]),
        ("{}", ["node"]),
    ],
)
def test_a_duplicate_job_wherever_it_comes_from(tmp_path: Path, run: Run, extra: str, jobs: list[str]) -> None:
    """Prometheus refuses two jobs of one name."""
    server: dict[str, Json] = {"additionalScrapeConfigs": [{"job_name": job} for job in jobs]}
    text = "inventory: {file: inventory.json}\n" + ("" if extra == "{}" else extra)
    config = world(tmp_path, text, None, inventory(["monitor"], server=server))
    done = run("check", "-c", config)
    assert done.code == 2
    assert f"duplicate job '{jobs[0]}'" in done.err
    assert "inventory.json: instances.monitoring.roles.server.machines.monitor" in done.err


def test_a_server_that_scraped_itself_before_it_was_asked_to(tmp_path: Path, run: Run) -> None:
    """A job `prometheus` of its own goes before `scrapeServers`; beside another server's, both ways out are told."""
    config = tmp_path / "config.yaml"
    own: Json = {"scrapeServers": True, "additionalScrapeConfigs": [{"job_name": "prometheus"}]}
    other: dict[str, Json] = {"web": {"scrapeServers": True}}
    alone: dict[str, Json] = {}
    for others, hint in ((alone, None), (other, "rename yours, or set `scrapeServers = false`")):
        members: Json = {name: {"settings": said} for name, said in {"monitor": own, **others}.items()}
        roles: Json = {"server": {"machines": members}, "exporter": {"tags": ["all"]}}
        instances: Json = {"monitoring": {"module": {"name": "prometheus"}, "roles": roles}}
        found = inventory(["monitor", "web"], instances=instances)
        world(tmp_path, "inventory: {file: inventory.json}\n", None, found)
        done = run("check", "-c", config)
        assert done.code == (2 if hint else 0)
        assert (hint or "") in done.err


def test_two_servers_with_one_job_name(tmp_path: Path, run: Run) -> None:
    """The same config on both is one job; two different ones are a complaint."""
    declared = inventory(["monitor", "second"])
    same: dict[str, Json] = {"additionalScrapeConfigs": [{"job_name": "ext", "scheme": "http"}]}
    other: dict[str, Json] = {"additionalScrapeConfigs": [{"job_name": "ext", "scheme": "https"}]}
    for settings, code in ((same, 0), (other, 2)):
        role: dict[str, Json] = {"machines": {"monitor": {"settings": same}, "second": {"settings": settings}}}
        declared["instances"] = {
            "mon": {"module": {"name": "prometheus"}, "roles": {"server": role, "exporter": {"tags": ["all"]}}}
        }
        config = world(tmp_path, "inventory: {file: inventory.json}\n", None, declared)
        assert run("check", "-c", config).code == code


def test_names_that_dns_cannot_tell_apart(tmp_path: Path, run: Run) -> None:
    """One node would be two machines."""
    config = world(tmp_path, DECLARED, fleet(["web"]), inventory(["Web", "web"]))
    assert "'Web' and 'web' differ in case alone" in run("check", "-c", config).err


def test_the_last_exporter_leaves(tmp_path: Path, run: Run) -> None:
    """An instance without members is an answer: the files become empty, not old."""
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor"]))
    run("refresh", "-c", config)
    declared = inventory(["monitor"])
    declared["instances"] = {"mon": {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": []}}}}
    (tmp_path / "inventory.json").write_text(json.dumps(declared))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path) == {}


def test_nobody_asked_is_not_absent(tmp_path: Path, run: Run) -> None:
    """`absent: drop` drops what is proven absent; with no backend nothing is."""
    text = "inventory: {file: inventory.json}\npolicy: {absent: drop}\noutput: {directory: targets}\n"
    config = world(tmp_path, text, None, inventory(["monitor"]))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path) == {"monitor": "monitor.home.arpa:9100"}
    assert "unknown" in run("show", "-c", config).out


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (SELECT.replace("directory: targets", "directory: ."), 0),
        (SELECT.replace("targets}", '"a\\0b"}'), 2),
        (SELECT.replace("status.json}", "status.json, timeout: 200000d}"), 2),
        (SELECT + f"policy: {{max_age: 1{'0' * 400}s}}\n", 2),
        (SELECT + "policy: {max_shrink: yes}\n", 2),
        (SELECT + f"state: {'x' * 300}\n", 0),
        (SELECT.replace("directory: targets", f"directory: {'x' * 300}"), 5),
        ("a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a, *a, *a, *a, *a]\n" for n in range(3)), 2),
        ("a: &a\n  b: *a\n", 2),
        ("".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['x'] * 9)}]\n" for n in range(9)), 2),
        ("backends: 2024-01-01\n", 2),
        ("output: {directory: }\n", 2),
    ],
)
def test_values_that_ended_in_a_stack_trace(tmp_path: Path, run: Run, text: str, code: int) -> None:
    """Each is one line and a code of the contract."""
    config = world(tmp_path, text, fleet(["a"]))
    done = run("refresh", "-c", config)
    assert done.code == code
    assert "Traceback" not in done.err
    assert "datetime" not in done.err
    assert all(line.startswith("clan-discovery: ") for line in done.err.splitlines())


def test_text_that_is_no_text(tmp_path: Path, run: Run) -> None:
    """Half a surrogate pair is legal JSON that nobody can write."""
    config = world(tmp_path, DECLARED, fleet(["a"]))
    (tmp_path / "inventory.json").write_text('{"machines": {"a": {"tags": ["\\ud800"]}}, "instances": {}}')
    done = run("inventory", "-c", config)
    assert done.code == 2
    assert "no Unicode" in done.err
    (tmp_path / "inventory.json").write_text(json.dumps(inventory({"a": {"tags": ["\U0001f600"]}})))
    assert run("inventory", "-c", config).code == 0
    (tmp_path / "inventory.json").write_text('{"machines": {"a": {}}, "instances": {}, "x": 1e999}')
    assert "too large a number" in run("inventory", "-c", config).err


@pytest.mark.parametrize("command", ["show", "inventory", "explain wéb", "check", "refresh"])
def test_any_locale_and_any_stream(tmp_path: Path, command: str) -> None:
    """An ASCII terminal, a closed stdout, a closed stderr: no stack trace, and the code of the contract."""
    config = world(tmp_path, DECLARED, fleet(["a"]), inventory(["wéb", "monitor"]))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}
    words = f"{PROGRAM} {command} -c {config}"
    for streams in ("", ">&-", "2>&-", ">&- 2>&-", "2>/dev/full"):
        done = subprocess.run(
            ["bash", "-c", f"{words} {streams}"], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, (streams, done)
        assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    """`show | head`, also for a table of thousands."""
    config = world(tmp_path, DECLARED, fleet(["a"]), inventory(["monitor", *(f"m{n}" for n in range(3000))]))
    for format_ in ("table", "json", "file-sd", "nix"):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{PROGRAM} show -c {config} -f {format_} | head -1"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


def test_a_fifo_hangs_nobody(tmp_path: Path, run: Run) -> None:
    """In the output directory, or as the config."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    (tmp_path / "targets").mkdir()
    os.mkfifo(tmp_path / "targets/x.json")
    assert run("refresh", "-c", config).code == 0
    os.mkfifo(tmp_path / "fifo.yaml")
    assert run("check", "-c", tmp_path / "fifo.yaml").code == 2


def test_a_file_of_the_users_is_not_replaced_in_silence(tmp_path: Path, run: Run) -> None:
    """The contract gives us the directory; what stood there is named."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets/node.json").write_text('[{"targets": ["mine:1"]}]')
    assert "node.json was not written by clan-discovery and is overwritten" in run("refresh", "-c", config).err
    assert run("refresh", "-c", config).err == ""


def test_complaints_of_every_kind_come_at_once(tmp_path: Path, run: Run) -> None:
    """Labels, endpoints, duplicate keys and unknown keys in one go."""
    config = world(
        tmp_path,
        "labels: {a-b: x, job: y}\npolcy: {}\n"
        "backends: {static: {l: {targets: {node: ['10.0.0.5:9100x', 7]}, machines: {a: '1.2.3.4:5'}}}}\n"
        "labels: {}\n",
        None,
    )
    said = run("check", "-c", config).err
    for part in ("is given twice", "polcy: unknown key", "no valid port", "has a port", "not 7"):
        assert part in said


def test_places_in_json_survive_surrogate_pairs(tmp_path: Path, run: Run) -> None:
    """Nix escapes nothing beyond the basic plane so, but other writers do."""
    (tmp_path / "c.json").write_text('{"labels": {"a": "\\ud83d\\ude00"},\n "polcy": {}}')
    assert "c.json:2:2: polcy: unknown key" in run("check", "-c", tmp_path / "c.json").err


def test_a_settings_dump_on_the_command_line(tmp_path: Path, run: Run) -> None:
    """It adds to the config and does not replace it."""
    declared = inventory(["a"])
    declared["instances"] = {"m": {"module": {"name": "mine"}, "roles": {"exporter": {"tags": ["all"]}}}}
    text = "inventory: {file: inventory.json, modules: [mine]}\n"
    config = world(tmp_path, text, None, declared)
    (tmp_path / "dump.json").write_text('{"x": {"m": {"exporter": {"a": {"port": 9999}}}}}')
    for words in (["-c", config], ["-c", config, "--file", tmp_path / "inventory.json"]):
        done = run("inventory", *words, "--settings", tmp_path / "dump.json")
        assert [e["port"] for e in json.loads(done.out)["exporters"]] == [9999]
    (tmp_path / "dump.json").write_text('{"x": {"m": {"exporter": {"a": {"port": 0}}}}}')
    assert "dump.json: instances.m" in run("inventory", "-c", config, "--settings", tmp_path / "dump.json").err


def test_explain_knows_a_typo_of_the_inventory(tmp_path: Path, run: Run) -> None:
    """The role's machine that does not exist is asked for by that name."""
    declared = inventory(["web"])
    declared["instances"] = {
        "mon": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {"wep": {}, "web": {}}}}}
    }
    config = world(tmp_path, DECLARED, fleet(["web"]), declared)
    assert "'wep' is no machine of the inventory" in run("explain", "wep", "-c", config).out


def test_what_is_no_socket_is_called_so(tmp_path: Path, run: Run) -> None:
    """The kernel says refused for any file."""
    text = DECLARED.replace("status_file: status.json", "socket: status.json")
    done = run("show", "-c", world(tmp_path, text, None, inventory(["a"])))
    assert done.code == 3
    assert "not a socket: for a saved status use status_file" in done.err


def test_scrape_labels_that_prometheus_would_refuse(tmp_path: Path, run: Run) -> None:
    """An interval and a timeout come together, as durations; else each target would fail one by one."""
    for labels in (
        "{__scrape_interval__: banana}",
        "{__scrape_timeout__: 5m}",
        "{__scrape_interval__: 10s, __scrape_timeout__: 30s}",
        "{__scrape_interval__: 0s, __scrape_timeout__: 0s}",
    ):
        config = world(tmp_path, SELECT + f"labels: {labels}\n", fleet(["a"]))
        done = run("check", "-c", config)
        assert done.code == 2
        assert "come together" in done.err
    config = world(tmp_path, SELECT + "labels: {__scrape_interval__: 1m, __scrape_timeout__: 30s}\n", fleet(["a"]))
    assert run("refresh", "-c", config).code == 0
    promtool_accepts(tmp_path / "targets")


def test_two_schemes_on_one_port_are_two_instances(tmp_path: Path, run: Run) -> None:
    """They would write into each other's series."""
    declared = inventory(["a"])
    declared["instances"] = {
        name: {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": ["all"], "settings": settings}}}
        for name, settings in (("m", {}), ("n", {"scheme": "https"}))
    }
    config = world(tmp_path, DECLARED, fleet(["a"]), declared)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"a:9100/metrics", "https://a:9100/metrics"}


def test_explain_knows_what_is_seen_and_not_picked(tmp_path: Path, run: Run) -> None:
    """And a machine that is picked is no stray."""
    seen = status([node(1, "w"), node(2, "z", Tags=None)])
    config = world(tmp_path, SELECT, seen)
    assert "no rule picks it" in run("explain", "z", "-c", config).out
    assert "stray" not in run("explain", "w", "-c", config).out
    assert run("explain", "y", "-c", config).code == 2


def test_what_the_config_names_is_wrong_in_the_config(tmp_path: Path, run: Run) -> None:
    """An instance or a server that the inventory does not have: the place is the config's."""
    text = "instances: [monitoring, mno]\nserver: db\n" + DECLARED
    config = world(tmp_path, text, fleet(["monitor"]), inventory(["monitor", "db"]))
    said = run("check", "-c", config).err
    assert "config.yaml:1:25: instances.1: the inventory has no instance 'mno'" in said
    assert "config.yaml:2:9: server: 'db' has no server role in the inventory" in said


def test_the_name_of_another_tailnet_is_nobodys(tmp_path: Path, run: Run) -> None:
    """Where one of two tailnets could not be asked, a machine stands in the clan's domain."""
    text = DECLARED.replace("{tailnet:", "{gone: {status_file: gone.json}, tailnet:")
    config = world(tmp_path, text, fleet(["monitor"]), inventory(["monitor", "db"]))
    assert run("refresh", "-c", config).code == 3
    assert addresses(tmp_path)["db"] == "db.home.arpa:9100"


def test_a_list_of_endpoints_locates_nobody(tmp_path: Path, run: Run) -> None:
    """It is no backend that could prove a machine absent."""
    text = "inventory: {file: inventory.json}\npolicy: {absent: drop}\noutput: {directory: targets}\n"
    text += "backends: {static: {l: {targets: {node: ['x:1']}}}}\n"
    config = world(tmp_path, text, None, inventory(["monitor"]))
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"monitor", "x"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exporters: {node: {select: }}", "write {} for every machine"),
        ("exporters: {node: {path: '/probe?module=x', select: {}}}", "goes into `params`"),
    ],
)
def test_what_looks_right_and_is_not(tmp_path: Path, run: Run, text: str, said: str) -> None:
    """Each would have been taken in silence."""
    done = run("check", "-c", world(tmp_path, text, None))
    assert done.code == 2
    assert said in done.err


def test_an_empty_word_is_no_directory(tmp_path: Path, run: Run) -> None:
    """A shell variable that is not set."""
    done = run("refresh", "-c", world(tmp_path, SELECT, fleet(["a"])), "--output", "")
    assert done.code == 2
    assert "got an empty string" in done.err


def test_a_shrink_that_is_believed_in_the_end_says_so(tmp_path: Path, run: Run) -> None:
    """After the rounds or the time of policy.shrink_after, with a warning."""
    names = ["a", "b", "c", "d", "e"]
    config = world(tmp_path, SELECT + "policy: {shrink_after: {rounds: 3, time: 1h}}\n", fleet(names))
    assert run("refresh", "-c", config).code == 0
    (tmp_path / "status.json").write_text(json.dumps(fleet(["a"])))
    assert [run("refresh", "-c", config).code for _ in range(2)] == [4, 4]
    done = run("refresh", "-c", config)
    assert done.code == 0
    assert "the loss is believed after 3 rounds" in done.err


def test_an_older_inventory_is_not_published_over_a_newer_one(tmp_path: Path) -> None:
    """The inventory is read under the lock: what a refresher read before it waited does not count."""
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor"]))
    assert subprocess.run([PROGRAM, "refresh", "-q", "-c", str(config)], check=False).returncode == 0
    with locked(tmp_path / "targets", 1):
        waiting = subprocess.Popen([PROGRAM, "refresh", "-q", "-c", str(config)])
        time.sleep(1.0)
        (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "newer"])))
    assert waiting.wait(20) == 0
    assert set(addresses(tmp_path)) == {"monitor", "newer"}


def test_two_configs_share_a_state_without_forgetting_each_other(tmp_path: Path, run: Run) -> None:
    """Each has a backend of its own; the outage of one finds its memory."""
    for name in ("a", "b"):
        text = SELECT.replace("tailnet:", f"net-{name}:").replace("targets}", f"{name}/targets}}") + "state: s\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "status.json").write_text(json.dumps(fleet(["m"])))
    assert run("refresh", "-c", tmp_path / "a.yaml").code == 0
    assert run("refresh", "-c", tmp_path / "b.yaml").code == 0
    (tmp_path / "status.json").write_text("")
    assert "its last good answer" in run("refresh", "-c", tmp_path / "a.yaml").err


def test_a_rule_scrapes_the_node_that_it_picked(tmp_path: Path, run: Run) -> None:
    """Two tailnets have a `web`; only one bears the tag, and that one it is, with its own labels."""
    (tmp_path / "other.json").write_text(json.dumps(status([node(66, "me"), node(67, "web", Tags=None)])))
    text = SELECT.replace("{tailnet:", "{aaa: {status_file: other.json}, tailnet:")
    config = world(tmp_path, text, status([node(1, "monitor"), node(2, "web")]))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path)["web"] == "100.64.0.2:9100"
    body = (tmp_path / "targets/node.json").read_text()
    assert "n00000002CNTRL" in body
    assert "n00000067CNTRL" not in body


def test_lost_tags_are_a_loss(tmp_path: Path, run: Run) -> None:
    """A control plane that forgets every tag takes every picked target away: it is held like any other."""
    names = ["a", "b", "c", "d", "e"]
    config = world(tmp_path, SELECT, fleet(names))
    assert run("refresh", "-c", config).code == 0
    bare = status([node(number, name, Tags=None) for number, name in enumerate(names, 1)])
    (tmp_path / "status.json").write_text(json.dumps(bare))
    done = run("refresh", "-c", config)
    assert done.code == 4
    assert "of 5 machines with tags, 0 would still have any" in done.err
    assert set(addresses(tmp_path)) == set(names)


def test_a_static_target_of_the_inventory_goes_when_it_is_taken_out(tmp_path: Path, run: Run) -> None:
    """Also while a backend is blind: what the inventory wrote down is the inventory's to keep."""
    declared = inventory(["monitor"], server={"staticTargets": {"node": ["10.9.9.9:9100"]}})
    config = world(tmp_path, DECLARED + "exporters: {node: {select: {}}}\n", None, declared)
    (tmp_path / "status.json").unlink()
    assert run("refresh", "-c", config).code == 3
    assert set(addresses(tmp_path)) == {"10.9.9.9", "monitor"}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    assert run("refresh", "-c", config).code == 3
    assert set(addresses(tmp_path)) == {"monitor"}


def test_an_inventory_and_a_rule_in_one_job_through_an_outage_without_memory(tmp_path: Path, run: Run) -> None:
    """The jobs of the present files stay as they are until the backend answers again."""
    text = DECLARED + "exporters: {node: {select: {}}}\n"
    config = world(tmp_path, text, fleet(["monitor", "db", "stray"]), inventory(["monitor", "db"]))
    assert run("refresh", "-c", config).code == 0
    for file in (tmp_path / "targets.state").glob("*.json"):
        file.unlink()
    (tmp_path / "status.json").write_text("")
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    assert run("refresh", "-c", config).code == 3
    present = {"db": "100.64.0.2:9100", "monitor": "100.64.0.1:9100", "stray": "100.64.0.3:9100"}
    assert addresses(tmp_path) == present
    config.write_text(DECLARED + "policy: {max_age: 1s}\n")
    time.sleep(1.2)
    assert run("refresh", "-c", config).code == 3
    assert addresses(tmp_path) == {"monitor": "monitor.home.arpa:9100"}


def test_first_refreshes_side_by_side(tmp_path: Path) -> None:
    """Whoever makes the directory first, nobody is told that it is none."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    for turn in range(3):
        words = [PROGRAM, "refresh", "-q", "-c", str(config), "--output", str(tmp_path / f"o{turn}/deep/targets")]
        started = [subprocess.Popen(words) for _ in range(4)]
        assert [process.wait(30) for process in started] == [0] * 4


@pytest.mark.parametrize("text", ["[" * 50_000, "a: " + "{a: " * 50_000, "- " * 50_000])
def test_yaml_that_is_too_deep_for_libyaml(tmp_path: Path, text: str) -> None:
    """It would end the process without a word; run as a process, to see that it does not."""
    (tmp_path / "c.yaml").write_text(text)
    done = subprocess.run(
        [PROGRAM, "check", "-c", str(tmp_path / "c.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["h:0000099999", "h:065536", "h:0", "h:+1"])
def test_ports_that_only_look_like_ports(text: str) -> None:
    """Leading zeros hide nothing."""
    with pytest.raises(ValueError, match="no valid port"):
        split_endpoint(text)


def test_a_strangers_nul_stops_nobodys_nix(tmp_path: Path, run: Run) -> None:
    """The label that holds it goes, the target stays."""
    config = world(tmp_path, SELECT, status([node(1, "a"), node(2, "b", HostName="evil\0")]))
    done = run("show", "-f", "nix", "-c", config)
    assert done.code == 0
    assert '"100.64.0.2:9100"' in done.out
    assert "\0" not in done.out


def test_the_same_words_give_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the hash seed: sets are sorted before they are told."""
    declared = inventory(["monitor"])
    roles: dict[str, Json] = {"servr": {}, "sever": {}, "exportr": {}, "exporter": {"tags": ["all", "x", "y"]}}
    declared["instances"] = {"m": {"module": {"name": "prometheus"}, "roles": roles}}
    config = world(tmp_path, DECLARED, fleet(["monitor", "s1", "s2", "s3"]), declared)
    seen = {
        subprocess.run(
            [PROGRAM, "show", "-f", "json", "-c", str(config)],
            capture_output=True, check=False, env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed in range(4)
    }  # fmt: skip
    assert len(seen) == 1


def test_a_backend_that_discovery_adds_takes_no_name_twice(tmp_path: Path, run: Run) -> None:
    """A list of the name of the backend that `discoveryMethod` asks for."""
    text = "inventory: {file: inventory.json}\nbackends: {static: {tailscale: {}}}\n"
    config = world(tmp_path, text, None, inventory(["monitor"], server={"discoveryMethod": "tailscale"}))
    assert "config.yaml:2:32" in run("check", "-c", config).err
    config = world(tmp_path, "backends: {static: {inventory: {targets: {node: [a]}}}}\n", None)
    assert "'inventory' is taken by the inventory itself" in run("check", "-c", config).err


def test_a_probe_that_is_written_down_without_a_target(tmp_path: Path, run: Run) -> None:
    """It serves nothing, wherever it stands; with a target it does."""
    static = "backends: {static: {l: {targets: {blackbox: ['10.0.0.5']}}}}\n"
    assert "probes others" in run("check", "-c", world(tmp_path, static, None)).err
    with_target = static + "exporters: {blackbox: {params: {target: 'https://x'}}}\n"
    assert run("check", "-c", world(tmp_path, with_target, None)).code == 0
    declared = inventory(["monitor"], server={"staticTargets": {"blackbox": ["10.0.0.5"]}})
    assert "probes others" in run("check", "-c", world(tmp_path, DECLARED, None, declared)).err


def test_complaints_name_what_is_written(tmp_path: Path, run: Run) -> None:
    """Not what the models make of it: no `any` in a list of tags, no index in a single address, a key at the key."""
    text = "exporters: {node: {select: {tags: [server, 5]}}}\nbackends: {static: {l: {machines: {a: 'x:1'}}}}\n"
    said = run("check", "-c", world(tmp_path, text + "labels: {a-b: c}\n", None)).err
    assert "config.yaml:1:44: exporters.node.select.tags.1: must be a string" in said
    assert "config.yaml:2:39: backends.static.l.machines.a: 'x:1' has a port" in said
    assert "config.yaml:3:10: labels.a-b:" in said


def test_a_read_only_state_is_left_as_it_is(tmp_path: Path) -> None:
    """Also where something could be remembered."""
    state = State(tmp_path / "s", read_only=True)
    assert not state.write({"index.json": b"{}"})
    with state.locked(1):
        pass
    assert not (tmp_path / "s").exists()


def test_symlinks_planted_where_files_are_prepared(tmp_path: Path, run: Run) -> None:
    """What they point to is not written, not emptied, not removed."""
    (tmp_path / "precious.txt").write_text("x")
    config = world(tmp_path, SELECT, fleet(["a"]))
    scratch = tmp_path / "targets.state/publishing"
    scratch.mkdir(parents=True)
    (scratch / "node.json.publishing").symlink_to(tmp_path / "precious.txt")
    assert run("refresh", "-c", config).code == 0
    assert (tmp_path / "precious.txt").read_text() == "x"
    assert set(addresses(tmp_path)) == {"a"}


def test_a_file_that_is_half_somebody_elses_is_not_emptied(tmp_path: Path, run: Run) -> None:
    """Every group must be ours."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    (tmp_path / "targets").mkdir()
    mixed = '[{"targets": ["x:1"], "labels": {"__meta_clan_observed": "true"}}, {"targets": ["mine:1"]}]'
    (tmp_path / "targets/mixed.json").write_text(mixed)
    assert "mixed.json was not written by clan-discovery and is left alone" in run("refresh", "-c", config).err
    assert (tmp_path / "targets/mixed.json").read_text() == mixed


def test_a_backlog_that_is_full(tmp_path: Path, run: Run) -> None:
    """Connecting waits no longer than the budget."""
    text = SELECT.replace("status_file: status.json", "socket: s, timeout: 300ms")
    config = world(tmp_path, text, None)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(tmp_path / "s"))
        server.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(tmp_path / "s"))
        assert run("show", "-c", config).code == 3


def test_one_server_that_discovers_is_enough(tmp_path: Path, run: Run) -> None:
    """Two servers, one with discovery off."""
    declared = inventory(["monitor", "second"])
    role: dict[str, Json] = {"machines": {"monitor": {"settings": {"enableAutoDiscovery": False}}, "second": {}}}
    declared["instances"] = {
        "m": {"module": {"name": "prometheus"}, "roles": {"server": role, "exporter": {"tags": ["all"]}}}
    }
    config = world(tmp_path, DECLARED, fleet(["monitor"]), declared)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"monitor", "second"}


def test_a_laptop_that_comes_and_goes(tmp_path: Path, run: Run) -> None:
    """A grace by tag: kept while it lasts, dropped after it, back at once; the others stay whatever the flag says."""
    declared = inventory({"monitor": {}, "db": {}, "laptop": {"tags": ["roaming"]}})
    text = DECLARED + "policy: {offline_tags: {roaming: {grace: 1s}}}\n"

    def seen(online: bool) -> None:  # noqa: FBT001
        nodes = [node(1, "monitor"), node(2, "db", Online=False), node(3, "laptop", Online=online)]
        (tmp_path / "status.json").write_text(json.dumps(status(nodes)))

    config = world(tmp_path, text, None, declared)
    everybody = {"monitor", "db", "laptop"}
    for online, pause, expected in (
        (False, 0.0, everybody),
        (False, 1.2, everybody - {"laptop"}),
        (True, 0.0, everybody),
        (False, 0.0, everybody),
    ):
        time.sleep(pause)
        seen(online)
        assert run("refresh", "-c", config).code == 0
        assert set(addresses(tmp_path)) == expected
    time.sleep(1.2)
    (tmp_path / "status.json").write_text("")
    assert run("refresh", "-c", config).code == 3
    assert set(addresses(tmp_path)) == everybody  # an outage is no news of anybody


def test_a_config_that_is_edited_during_an_outage_moves_nothing(tmp_path: Path, run: Run) -> None:
    """The family, the demanded tags, the backend's name: declared and picked targets stand where they stood."""
    text = DECLARED + "exporters: {nginx: {select: {}}}\n"
    config = world(tmp_path, text, fleet(["monitor", "a", "b"]), inventory(["monitor", "a"]))
    assert run("refresh", "-c", config).code == 0
    before = addresses(tmp_path), addresses(tmp_path, "nginx")
    (tmp_path / "status.json").write_text("")
    for old, new in (
        ("status.json}", "status.json, family: any}"),
        ("status.json}", "status.json, tags: [server]}"),
        ("tailnet:", "home:"),
    ):
        config.write_text(text.replace(old, new))
        assert run("refresh", "-c", config).code == 3
        assert (addresses(tmp_path), addresses(tmp_path, "nginx")) == before


def test_a_lost_state_and_a_loss_in_the_same_night(tmp_path: Path, run: Run) -> None:
    """The published files still know what there was: the loss is held."""
    names = ["monitor", "a", "b", "c", "d"]
    config = world(tmp_path, DECLARED, fleet(names), inventory(names))
    assert run("refresh", "-c", config).code == 0
    before = addresses(tmp_path)
    for file in (tmp_path / "targets.state").glob("*.json"):
        file.unlink()
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    assert run("refresh", "-c", config).code == 4
    assert addresses(tmp_path) == before


def test_a_held_round_brings_nobody_back(tmp_path: Path, run: Run) -> None:
    """Who was dropped for being offline stays dropped while a loss is held."""
    names = ["monitor", "a", "b", "c", "d"]
    nodes = [node(number, name, Online=name != "a") for number, name in enumerate(names, 1)]
    text = DECLARED + "policy: {offline: drop}\n"
    config = world(tmp_path, text, status(nodes), inventory(names))
    assert run("refresh", "-c", config).code == 0
    before = addresses(tmp_path)
    assert "a" not in before
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    assert run("refresh", "-c", config).code == 4
    assert addresses(tmp_path) == before


@pytest.mark.parametrize("name", ["inventory.json", "dir.prom", "link.prom", "x.txt", "/"])
def test_a_metrics_file_that_was_not_meant(tmp_path: Path, run: Run, name: str) -> None:
    """What stands at the path would be replaced: only a regular `.prom` is."""
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor"]))
    (tmp_path / "dir.prom").mkdir()
    (tmp_path / "link.prom").symlink_to(tmp_path / "inventory.json")
    before = (tmp_path / "inventory.json").read_bytes()
    assert run("refresh", "-c", config, "--metrics-file", tmp_path / name).code == 2
    assert (tmp_path / "inventory.json").read_bytes() == before
    assert (tmp_path / "link.prom").is_symlink()


@pytest.mark.parametrize(
    "text", ["[::1", "[x]:1", "a:", "a:b", ":9100", "a:1:2", "fe80::1%eth0", "[::1]x", "-a:1", "a..b"]
)
def test_endpoints_that_are_none(text: str) -> None:
    """Each is refused with a sentence."""
    with pytest.raises(ValueError, match=r"write|port"):
        split_endpoint(text)
    assert split_endpoint(f"db.{SUFFIX}:9100") == (f"db.{SUFFIX}", 9100)
    assert split_endpoint("[fd00::1]:9100") == ("fd00::1", 9100)
