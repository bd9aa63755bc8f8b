"""Regression tests: each of these once lost a target, said something false, or ended in a stack trace."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from clan_discovery.publish.lock import locked
from clan_discovery.publish.state import State
from clan_discovery.syntax.endpoint import split_endpoint
from tests.support.fleet import SUFFIX, fleet, inventory, node, status
from tests.support.forked import together
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
    """Return the published address of each instance of a job."""
    groups = json.loads((place / "targets" / f"{job}.json").read_bytes())
    return {g["labels"]["instance"]: g["targets"][0] for g in groups}


def test_refresh_removes_no_foreign_file_from_the_state_directory(tmp_path: Path, run: Run) -> None:
    """Only files that we prepared are removed, and no symlink is followed."""
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
def test_selected_targets_are_kept_during_an_outage_without_usable_memory(tmp_path: Path, run: Run, lost: str) -> None:
    """The published file is kept when the memory is lost or was made with other settings."""
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
    assert set(addresses(tmp_path)) == {"a", "b"}  # a proven absence takes effect at once


def test_the_loss_guard_does_not_depend_on_the_working_directory(tmp_path: Path, run: Run) -> None:
    """A backend is identified by its absolute path."""
    names = ["monitor", "a", "b", "c", "d"]
    config = world(tmp_path, DECLARED, fleet(names), inventory(names))
    assert run("refresh", "-c", config).code == 0
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    done = subprocess.run([PROGRAM, "refresh", "-c", "config.yaml"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 4


def test_a_table_in_a_pipe_is_not_shortened(tmp_path: Path, run: Run) -> None:
    """Long names stay whole when the output is no terminal."""
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


def test_the_umask_does_not_close_published_directories(tmp_path: Path, run: Run) -> None:
    """Directories that we create have mode 0755."""
    config = world(tmp_path, SELECT.replace("targets}", "new/targets}"), fleet(["a"]))
    old = os.umask(0o077)
    try:
        assert run("refresh", "-c", config).code == 0
    finally:
        os.umask(old)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "new/targets").stat().st_mode & 0o777 == 0o755


def test_a_directory_in_place_of_a_target_file_stops_the_cycle(tmp_path: Path, run: Run) -> None:
    """The error names the directory, and no other file is written."""
    declared = inventory(["monitor"])
    config = world(tmp_path, DECLARED + "exporters: {nginx: {select: {}}}\n", fleet(["monitor"]), declared)
    (tmp_path / "targets/node.json").mkdir(parents=True)
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert "node.json is a directory" in done.err
    assert [f.name for f in (tmp_path / "targets").glob("[!.]*")] == ["node.json"]


def test_concurrent_refreshes_of_several_outputs_share_a_state(tmp_path: Path) -> None:
    """Four processes with one state directory: no cycle fails."""
    config = world(tmp_path, SELECT + "state: s\n", fleet([f"m{n}" for n in range(50)]))
    outputs = [tmp_path / f"o{number}/targets" for number in range(4)]
    for _ in range(5):
        for output in outputs:
            (output / "node.json").unlink(missing_ok=True)
        done = together(*(["refresh", "-q", "-c", config, "--output", output] for output in outputs))
        assert [one.code for one in done] == [0] * 4, done
        assert all((output / "node.json").exists() for output in outputs)


def test_an_untrusted_node_is_not_scraped_by_its_magicdns_name(tmp_path: Path, run: Run) -> None:
    """The node lacks the required tag.

    Its MagicDNS name leads to it, so the target has another address.
    """
    seen = status([node(1, "monitor"), node(2, "db", Tags=None)])
    text = DECLARED.replace("status.json}", "status.json, tags: [server]}")
    config = world(tmp_path, text, seen, inventory(["monitor", "db"]))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path) == {"db": "db.home.arpa:9100", "monitor": "100.64.0.1:9100"}
    assert "has a node of the name, but it has none of the ACL tags" in run("explain", "db", "-c", config).out
    assert "refused" in run("show", "-c", config).out


def test_every_refresh_warns_of_an_ambiguous_name(tmp_path: Path, run: Run) -> None:
    """Two nodes with one name are a warning; the machine is not reported as missing."""
    config = world(tmp_path, DECLARED, status([node(1, "monitor"), node(2, "db"), node(3, "db")]), inventory(["db"]))
    done = run("refresh", "-c", config)
    assert "warning: db: ambiguous: 2 nodes claim the name" in done.err
    assert "missing" not in done.out
    assert "missing" not in run("explain", "db", "-c", config).out


def test_a_selected_node_without_an_address_is_excluded(tmp_path: Path, run: Run) -> None:
    """`explain` names the missing address family and the fix."""
    seen = status([node(1, "a"), node(2, "six", TailscaleIPs=["fd7a:115c:a1e0::6"])])
    config = world(tmp_path, SELECT, seen)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"a"}
    assert "excluded (node): no_address: it has no IPv4 address" in run("explain", "six", "-c", config).out


def test_a_machine_without_a_valid_dns_name_stays_a_target(tmp_path: Path, run: Run) -> None:
    """Every refresh reports it.

    An invalid label is an error, and no target is removed.
    """
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor", "a b"]))
    done = run("refresh", "-c", config)
    assert done.code == 0
    assert "not DNS names, so their targets are down: 'a b' at a-b-806c5cd3.invalid (rename the machine" in done.err
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
def test_check_refuses_duplicate_jobs_from_any_source(tmp_path: Path, run: Run, extra: str, jobs: list[str]) -> None:
    """Prometheus refuses a config with two jobs of one name."""
    server: dict[str, Json] = {"additionalScrapeConfigs": [{"job_name": job} for job in jobs]}
    text = "inventory: {file: inventory.json}\n" + ("" if extra == "{}" else extra)
    config = world(tmp_path, text, None, inventory(["monitor"], server=server))
    done = run("check", "-c", config)
    assert done.code == 2
    assert f"duplicate job '{jobs[0]}'" in done.err
    assert "inventory.json: instances.monitoring.roles.server.machines.monitor" in done.err


def test_an_own_prometheus_job_wins_over_scrape_servers(tmp_path: Path, run: Run) -> None:
    """If another server is scraped too, the name is taken: the error tells both fixes."""
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
    """The same scrape config on both servers is one job; different ones are an error."""
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


def test_names_that_differ_only_in_case_are_reported(tmp_path: Path, run: Run) -> None:
    """DNS ignores case, so one node would be two machines."""
    config = world(tmp_path, DECLARED, fleet(["web"]), inventory(["Web", "web"]))
    assert "'Web' and 'web' differ only in case" in run("check", "-c", config).err


def test_removing_the_last_exporter_empties_the_files(tmp_path: Path, run: Run) -> None:
    """An instance without members is a valid inventory; the old targets are removed."""
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor"]))
    run("refresh", "-c", config)
    declared = inventory(["monitor"])
    declared["instances"] = {"mon": {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": []}}}}
    (tmp_path / "inventory.json").write_text(json.dumps(declared))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path) == {}


def test_absent_drop_without_a_backend_drops_nothing(tmp_path: Path, run: Run) -> None:
    """`absent: drop` needs proof, and without a backend there is none."""
    text = "inventory: {file: inventory.json}\npolicy: {absent: drop}\noutput: {directory: targets}\n"
    config = world(tmp_path, text, None, inventory(["monitor"]))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path) == {"monitor": "monitor.home.arpa:9100"}
    assert "1 declared" in run("show", "-c", config).out


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
def test_unusual_config_values_give_no_stack_trace(tmp_path: Path, run: Run, text: str, code: int) -> None:
    """Each gives one-line messages and a documented exit code."""
    config = world(tmp_path, text, fleet(["a"]))
    done = run("refresh", "-c", config)
    assert done.code == code
    assert "Traceback" not in done.err
    assert "datetime" not in done.err
    assert all(line.startswith("clan-discovery: ") for line in done.err.splitlines())


def test_invalid_unicode_in_json_is_refused(tmp_path: Path, run: Run) -> None:
    """JSON can escape an unpaired surrogate, which UTF-8 cannot hold; also a number out of range."""
    config = world(tmp_path, DECLARED, fleet(["a"]))
    (tmp_path / "inventory.json").write_text('{"machines": {"a": {"tags": ["\\ud800"]}}, "instances": {}}')
    done = run("inventory", "-c", config)
    assert done.code == 2
    assert "not valid Unicode" in done.err
    (tmp_path / "inventory.json").write_text(json.dumps(inventory({"a": {"tags": ["\U0001f600"]}})))
    assert run("inventory", "-c", config).code == 0
    (tmp_path / "inventory.json").write_text('{"machines": {"a": {}}, "instances": {}, "x": 1e999}')
    assert "too large a number" in run("inventory", "-c", config).err


@pytest.mark.parametrize("command", ["show", "inventory", "explain wéb", "check", "refresh"])
def test_commands_work_with_any_locale_and_closed_streams(tmp_path: Path, command: str) -> None:
    """An ASCII terminal, a closed stdout or stderr: no stack trace, and the documented exit code.

    All commands have the same streams, so that one that prints and one that writes are tried with each.
    """
    config = world(tmp_path, DECLARED, fleet(["a"]), inventory(["wéb", "monitor"]))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}
    words = f"{PROGRAM} {command} -c {config}"
    both = "", ">&- 2>&-"
    for streams in (*both, ">&-", "2>&-", "2>/dev/full") if command in {"show", "refresh"} else both:
        done = subprocess.run(
            ["bash", "-c", f"{words} {streams}"], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, (streams, done)
        assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`show | head` succeeds, also for thousands of targets."""
    config = world(tmp_path, DECLARED, fleet(["a"]), inventory(["monitor", *(f"m{n}" for n in range(3000))]))
    for format_ in ("table", "json", "file-sd", "nix"):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{PROGRAM} show -c {config} -f {format_} | head -1"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


def test_a_fifo_does_not_hang_a_command(tmp_path: Path, run: Run) -> None:
    """In the output directory or as the config."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    (tmp_path / "targets").mkdir()
    os.mkfifo(tmp_path / "targets/x.json")
    assert run("refresh", "-c", config).code == 0
    os.mkfifo(tmp_path / "fifo.yaml")
    assert run("check", "-c", tmp_path / "fifo.yaml").code == 2


def test_overwriting_a_foreign_target_file_is_reported(tmp_path: Path, run: Run) -> None:
    """The output directory is ours by contract, but the warning names the file."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets/node.json").write_text('[{"targets": ["mine:1"]}]')
    assert "node.json was not written by clan-discovery and is overwritten" in run("refresh", "-c", config).err
    assert run("refresh", "-c", config).err == ""


def test_check_reports_errors_of_every_kind_together(tmp_path: Path, run: Run) -> None:
    """Labels, endpoints, duplicate keys and unknown keys in one run."""
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


def test_positions_in_json_are_right_after_surrogate_pairs(tmp_path: Path, run: Run) -> None:
    """Nix does not escape characters beyond the Basic Multilingual Plane, but other programs do."""
    (tmp_path / "c.json").write_text('{"labels": {"a": "\\ud83d\\ude00"},\n "polcy": {}}')
    assert "c.json:2:2: polcy: unknown key" in run("check", "-c", tmp_path / "c.json").err


def test_settings_on_the_command_line_add_to_the_config(tmp_path: Path, run: Run) -> None:
    """`--settings` does not replace the config."""
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


def test_explain_reports_a_role_member_that_is_no_machine(tmp_path: Path, run: Run) -> None:
    """It is found by the misspelt name."""
    declared = inventory(["web"])
    declared["instances"] = {
        "mon": {"module": {"name": "prometheus"}, "roles": {"exporter": {"machines": {"wep": {}, "web": {}}}}}
    }
    config = world(tmp_path, DECLARED, fleet(["web"]), declared)
    assert "'wep' is not a machine of the inventory" in run("explain", "wep", "-c", config).out


def test_a_regular_file_as_socket_is_named(tmp_path: Path, run: Run) -> None:
    """The kernel reports "connection refused" for any file."""
    text = DECLARED.replace("status_file: status.json", "socket: status.json")
    done = run("show", "-c", world(tmp_path, text, None, inventory(["a"])))
    assert done.code == 3
    assert "not a socket: for a saved status use status_file" in done.err


def test_scrape_interval_and_timeout_labels_are_checked(tmp_path: Path, run: Run) -> None:
    """Prometheus refuses each target whose interval or timeout is invalid, so both must be given, as durations."""
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
    """One instance label for both would mix their series."""
    declared = inventory(["a"])
    declared["instances"] = {
        name: {"module": {"name": "prometheus"}, "roles": {"exporter": {"tags": ["all"], "settings": settings}}}
        for name, settings in (("m", {}), ("n", {"scheme": "https"}))
    }
    config = world(tmp_path, DECLARED, fleet(["a"]), declared)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"a:9100/metrics", "https://a:9100/metrics"}


def test_explain_reports_a_node_that_no_rule_selects(tmp_path: Path, run: Run) -> None:
    """A selected node is not called a stray."""
    seen = status([node(1, "w"), node(2, "z", Tags=None)])
    config = world(tmp_path, SELECT, seen)
    assert "no rule picks it" in run("explain", "z", "-c", config).out
    assert "stray" not in run("explain", "w", "-c", config).out
    assert run("explain", "y", "-c", config).code == 2


def test_unknown_instance_and_server_are_reported_in_the_config(tmp_path: Path, run: Run) -> None:
    """The message has the position in the config, not in the inventory."""
    text = "instances: [monitoring, mno]\nserver: db\n" + DECLARED
    config = world(tmp_path, text, fleet(["monitor"]), inventory(["monitor", "db"]))
    said = run("check", "-c", config).err
    assert "config.yaml:1:25: instances.1: the inventory has no instance 'mno'" in said
    assert "config.yaml:2:9: server: 'db' has no server role in the inventory" in said


def test_with_a_failed_tailnet_an_unseen_machine_has_its_clan_domain_name(tmp_path: Path, run: Run) -> None:
    """It may be in the tailnet that failed, so the suffix of the other one is not used."""
    text = DECLARED.replace("{tailnet:", "{gone: {status_file: gone.json}, tailnet:")
    config = world(tmp_path, text, fleet(["monitor"]), inventory(["monitor", "db"]))
    assert run("refresh", "-c", config).code == 3
    assert addresses(tmp_path)["db"] == "db.home.arpa:9100"


def test_a_static_target_list_proves_no_machine_absent(tmp_path: Path, run: Run) -> None:
    """Only backends that locate machines count for `absent: drop`."""
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
def test_ambiguous_exporter_settings_are_refused(tmp_path: Path, run: Run, text: str, said: str) -> None:
    """They would have been accepted with another meaning."""
    done = run("check", "-c", world(tmp_path, text, None))
    assert done.code == 2
    assert said in done.err


def test_an_empty_output_option_is_refused(tmp_path: Path, run: Run) -> None:
    """A script may pass a shell variable that is not set."""
    done = run("refresh", "-c", world(tmp_path, SELECT, fleet(["a"])), "--output", "")
    assert done.code == 2
    assert "got an empty string" in done.err


def test_accepting_a_held_loss_is_a_warning(tmp_path: Path, run: Run) -> None:
    """The loss is accepted after the rounds or the time of policy.shrink_after."""
    names = ["a", "b", "c", "d", "e"]
    config = world(tmp_path, SELECT + "policy: {shrink_after: {rounds: 3, time: 1h}}\n", fleet(names))
    assert run("refresh", "-c", config).code == 0
    (tmp_path / "status.json").write_text(json.dumps(fleet(["a"])))
    assert [run("refresh", "-c", config).code for _ in range(2)] == [4, 4]
    done = run("refresh", "-c", config)
    assert done.code == 0
    assert "the loss is believed after 3 rounds" in done.err


def test_an_older_inventory_is_not_published_over_a_newer_one(tmp_path: Path) -> None:
    """A refresh reads the inventory after it has the lock."""
    config = world(tmp_path, DECLARED, fleet(["monitor"]), inventory(["monitor"]))
    assert subprocess.run([PROGRAM, "refresh", "-q", "-c", str(config)], check=False).returncode == 0
    with locked(tmp_path / "targets", 1):
        waiting = subprocess.Popen([PROGRAM, "refresh", "-q", "-c", str(config)])
        time.sleep(1.0)
        (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor", "newer"])))
    assert waiting.wait(60) == 0
    assert set(addresses(tmp_path)) == {"monitor", "newer"}


def test_two_configs_can_share_a_state(tmp_path: Path, run: Run) -> None:
    """Each has its own backend; during an outage its last good answer is found."""
    for name in ("a", "b"):
        text = SELECT.replace("tailnet:", f"net-{name}:").replace("targets}", f"{name}/targets}}") + "state: s\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "status.json").write_text(json.dumps(fleet(["m"])))
    assert run("refresh", "-c", tmp_path / "a.yaml").code == 0
    assert run("refresh", "-c", tmp_path / "b.yaml").code == 0
    (tmp_path / "status.json").write_text("")
    assert "its last good answer" in run("refresh", "-c", tmp_path / "a.yaml").err


def test_a_rule_uses_the_address_and_labels_of_the_selected_node(tmp_path: Path, run: Run) -> None:
    """Two tailnets have a `web`, but only one has the tag."""
    (tmp_path / "other.json").write_text(json.dumps(status([node(66, "me"), node(67, "web", Tags=None)])))
    text = SELECT.replace("{tailnet:", "{aaa: {status_file: other.json}, tailnet:")
    config = world(tmp_path, text, status([node(1, "monitor"), node(2, "web")]))
    assert run("refresh", "-c", config).code == 0
    assert addresses(tmp_path)["web"] == "100.64.0.2:9100"
    body = (tmp_path / "targets/node.json").read_text()
    assert "n00000002CNTRL" in body
    assert "n00000067CNTRL" not in body


def test_the_loss_guard_counts_lost_tags(tmp_path: Path, run: Run) -> None:
    """A control plane that loses all tags would remove every selected target."""
    names = ["a", "b", "c", "d", "e"]
    config = world(tmp_path, SELECT, fleet(names))
    assert run("refresh", "-c", config).code == 0
    bare = status([node(number, name, Tags=None) for number, name in enumerate(names, 1)])
    (tmp_path / "status.json").write_text(json.dumps(bare))
    done = run("refresh", "-c", config)
    assert done.code == 4
    assert "of 5 machines with tags, 0 would still have any" in done.err
    assert set(addresses(tmp_path)) == set(names)


def test_a_static_target_removed_from_the_inventory_is_removed(tmp_path: Path, run: Run) -> None:
    """Also while a backend has no data."""
    declared = inventory(["monitor"], server={"staticTargets": {"node": ["10.9.9.9:9100"]}})
    config = world(tmp_path, DECLARED + "exporters: {node: {select: {}}}\n", None, declared)
    (tmp_path / "status.json").unlink()
    assert run("refresh", "-c", config).code == 3
    assert set(addresses(tmp_path)) == {"10.9.9.9", "monitor"}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory(["monitor"])))
    assert run("refresh", "-c", config).code == 3
    assert set(addresses(tmp_path)) == {"monitor"}


def test_a_job_with_declared_and_selected_targets_is_kept_without_memory(tmp_path: Path, run: Run) -> None:
    """The present file is kept until the backend answers or max_age is over."""
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


def test_concurrent_first_refreshes_succeed(tmp_path: Path) -> None:
    """Each may be the one that creates the directory."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    for turn in range(3):
        done = together(*[["refresh", "-q", "-c", config, "--output", tmp_path / f"o{turn}/deep/targets"]] * 4)
        assert [one.code for one in done] == [0] * 4, done


@pytest.mark.parametrize("text", ["[" * 50_000, "a: " + "{a: " * 50_000, "- " * 50_000])
def test_deeply_nested_yaml_is_refused(tmp_path: Path, text: str) -> None:
    """It would crash libyaml, so the check runs in a process."""
    (tmp_path / "c.yaml").write_text(text)
    done = subprocess.run(
        [PROGRAM, "check", "-c", str(tmp_path / "c.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["h:0000099999", "h:065536", "h:0", "h:+1"])
def test_malformed_ports_are_refused(text: str) -> None:
    """Leading zeros and a sign do not make a port valid."""
    with pytest.raises(ValueError, match="no valid port"):
        split_endpoint(text)


def test_a_label_with_nul_is_left_out_of_nix(tmp_path: Path, run: Run) -> None:
    """Nix has no strings with NUL; the target is kept."""
    config = world(tmp_path, SELECT, status([node(1, "a"), node(2, "b", HostName="evil\0")]))
    done = run("show", "-f", "nix", "-c", config)
    assert done.code == 0
    assert '"100.64.0.2:9100"' in done.out
    assert "\0" not in done.out


def test_output_does_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    """Sets are sorted before they are printed."""
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


def test_a_backend_name_that_the_inventory_needs_is_refused(tmp_path: Path, run: Run) -> None:
    """The name of the backend that `discoveryMethod` adds, and `inventory`."""
    text = "inventory: {file: inventory.json}\nbackends: {static: {tailscale: {}}}\n"
    config = world(tmp_path, text, None, inventory(["monitor"], server={"discoveryMethod": "tailscale"}))
    assert "config.yaml:2:32" in run("check", "-c", config).err
    config = world(tmp_path, "backends: {static: {inventory: {targets: {node: [a]}}}}\n", None)
    assert "'inventory' is taken by the inventory itself" in run("check", "-c", config).err


def test_a_static_probe_needs_a_target(tmp_path: Path, run: Run) -> None:
    """In the config and in the inventory."""
    static = "backends: {static: {l: {targets: {blackbox: ['10.0.0.5']}}}}\n"
    assert "probes others" in run("check", "-c", world(tmp_path, static, None)).err
    with_target = static + "exporters: {blackbox: {params: {target: 'https://x'}}}\n"
    assert run("check", "-c", world(tmp_path, with_target, None)).code == 0
    declared = inventory(["monitor"], server={"staticTargets": {"blackbox": ["10.0.0.5"]}})
    assert "probes others" in run("check", "-c", world(tmp_path, DECLARED, None, declared)).err


def test_errors_have_the_key_path_as_written(tmp_path: Path, run: Run) -> None:
    """No `any` in a list of tags, no index for a single address, and the position of the key."""
    text = "exporters: {node: {select: {tags: [server, 5]}}}\nbackends: {static: {l: {machines: {a: 'x:1'}}}}\n"
    said = run("check", "-c", world(tmp_path, text + "labels: {a-b: c}\n", None)).err
    assert "config.yaml:1:44: exporters.node.select.tags.1: must be a string" in said
    assert "config.yaml:2:39: backends.static.l.machines.a: 'x:1' has a port" in said
    assert "config.yaml:3:10: labels.a-b:" in said


def test_a_read_only_state_is_not_created(tmp_path: Path) -> None:
    """Also where something could be remembered."""
    state = State(tmp_path / "s", read_only=True)
    assert not state.write({"index.json": b"{}"})
    with state.locked(1):
        pass
    assert not (tmp_path / "s").exists()


def test_a_symlink_among_prepared_files_is_not_followed(tmp_path: Path, run: Run) -> None:
    """Its target is not written, emptied or removed."""
    (tmp_path / "precious.txt").write_text("x")
    config = world(tmp_path, SELECT, fleet(["a"]))
    scratch = tmp_path / "targets.state/publishing"
    scratch.mkdir(parents=True)
    (scratch / "node.json.publishing").symlink_to(tmp_path / "precious.txt")
    assert run("refresh", "-c", config).code == 0
    assert (tmp_path / "precious.txt").read_text() == "x"
    assert set(addresses(tmp_path)) == {"a"}


def test_a_partly_foreign_target_file_is_not_emptied(tmp_path: Path, run: Run) -> None:
    """A file is ours only if every group in it is ours."""
    config = world(tmp_path, SELECT, fleet(["a"]))
    (tmp_path / "targets").mkdir()
    mixed = '[{"targets": ["x:1"], "labels": {"__meta_clan_observed": "true"}}, {"targets": ["mine:1"]}]'
    (tmp_path / "targets/mixed.json").write_text(mixed)
    assert "mixed.json was not written by clan-discovery and is left alone" in run("refresh", "-c", config).err
    assert (tmp_path / "targets/mixed.json").read_text() == mixed


def test_a_full_backlog_does_not_exceed_the_timeout(tmp_path: Path, run: Run) -> None:
    """Connecting counts towards the timeout of the backend."""
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


def test_auto_discovery_of_one_server_is_enough(tmp_path: Path, run: Run) -> None:
    """The other server has it off."""
    declared = inventory(["monitor", "second"])
    role: dict[str, Json] = {"machines": {"monitor": {"settings": {"enableAutoDiscovery": False}}, "second": {}}}
    declared["instances"] = {
        "m": {"module": {"name": "prometheus"}, "roles": {"server": role, "exporter": {"tags": ["all"]}}}
    }
    config = world(tmp_path, DECLARED, fleet(["monitor"]), declared)
    assert run("refresh", "-c", config).code == 0
    assert set(addresses(tmp_path)) == {"monitor", "second"}


def test_offline_grace_by_tag(tmp_path: Path, run: Run) -> None:
    """A machine is kept for the grace, then dropped, and back when it is online.

    Other machines are kept.
    """
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
    assert set(addresses(tmp_path)) == everybody  # an outage says nothing about any machine


def test_editing_the_config_during_an_outage_moves_no_target(tmp_path: Path, run: Run) -> None:
    """The family, the required tags and the backend's name may change."""
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


def test_a_loss_is_held_without_a_state(tmp_path: Path, run: Run) -> None:
    """The published files tell how many targets there were."""
    names = ["monitor", "a", "b", "c", "d"]
    config = world(tmp_path, DECLARED, fleet(names), inventory(names))
    assert run("refresh", "-c", config).code == 0
    before = addresses(tmp_path)
    for file in (tmp_path / "targets.state").glob("*.json"):
        file.unlink()
    (tmp_path / "status.json").write_text(json.dumps(fleet(["monitor"])))
    assert run("refresh", "-c", config).code == 4
    assert addresses(tmp_path) == before


def test_a_held_loss_restores_no_offline_machine(tmp_path: Path, run: Run) -> None:
    """A machine that was dropped because it is offline stays dropped."""
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
def test_a_metrics_file_must_be_a_regular_prom_file(tmp_path: Path, run: Run, name: str) -> None:
    """Any other file at the path would be overwritten."""
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
def test_malformed_endpoints_are_refused(text: str) -> None:
    """The error says what to write."""
    with pytest.raises(ValueError, match=r"write|port"):
        split_endpoint(text)
    assert split_endpoint(f"db.{SUFFIX}:9100") == (f"db.{SUFFIX}", 9100)
    assert split_endpoint("[fd00::1]:9100") == ("fd00::1", 9100)
