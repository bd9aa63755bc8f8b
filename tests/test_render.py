"""`render`: the declared targets as files, with the same bytes as `refresh`, and no other file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clan_discovery.publish.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]

CONFIG: dict[str, Json] = {
    "inventory": {"file": "inventory.json", "exports": "exports.json"},
    "server": "monitor",
    "backends": {"static": {"lab": {"targets": {"nas": ["nas.lan:9100"]}, "machines": {"db": ["10.0.0.5"]}}}},
    "output": {"directory": "targets"},
    "state": "state",
}
JOBS = ["nas", "node", "prometheus", "systemd"]


def place(home: Path, config: dict[str, Json], server: Json = None) -> Path:
    """Write a config and the clan that it reads; return the config."""
    members: Json = {"db": {"settings": {"exporters": {"node": {"port": 9200}, "systemd": {}}}}, "web": {}}
    roles: Json = {
        "server": {"machines": {"monitor": {"settings": {"scrapeServers": True, **(_object(server))}}}},
        "exporter": {"machines": members},
    }
    documents: dict[str, Json] = {
        "inventory.json": {
            "machines": {"db": {}, "monitor": {}, "web": {}},
            "meta": {"domain": "home.arpa"},
            "instances": {"m": {"module": {"name": "prometheus"}, "roles": roles}},
        },
        "exports.json": {"wg:lan:peer:web": {"peer": {"hosts": [{"plain": "fd00::5"}]}}},
        "config.json": config,
    }
    for name, document in documents.items():
        (home / name).write_text(json.dumps(document))
    return home / "config.json"


def _object(document: Json) -> dict[str, Json]:
    return document if isinstance(document, dict) else {}


def files(directory: Path) -> dict[str, bytes]:
    """Return every file of a directory except the lock and the owner mark, whose names begin with a dot."""
    return {file.name: file.read_bytes() for file in directory.glob("[!.]*")}


def test_same_bytes_as_refresh(tmp_path: Path, run: Run) -> None:
    """In every file, with no other file beside them."""
    config = place(tmp_path, CONFIG)
    assert run("refresh", "-q", "-c", config).code == 0
    done = run("render", "-c", config, "--output", tmp_path / "rendered")
    assert (done.code, done.err) == (0, "")
    assert done.out == "5 targets, 4 jobs; 4 files written\n"
    assert files(tmp_path / "rendered") == files(tmp_path / "targets")
    assert sorted(files(tmp_path / "rendered")) == [f"{job}.json" for job in JOBS]
    assert b"[fd00::5]:9100" in files(tmp_path / "rendered")["node.json"]
    assert {(file.stat().st_mode & 0o777) for file in (tmp_path / "rendered").iterdir()} == {0o644}


def test_no_state_and_no_lock(tmp_path: Path, run: Run) -> None:
    """It creates only the output directory; a second run writes nothing."""
    config = place(tmp_path, CONFIG)
    before = set(tmp_path.iterdir())
    run("render", "-c", config, "--output", tmp_path / "rendered")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "rendered"}
    assert run("render", "-c", config, "--output", tmp_path / "rendered").out == "5 targets, 4 jobs; 0 files written\n"


def test_a_listed_job_without_targets_is_an_empty_file(tmp_path: Path, run: Run) -> None:
    """The scrape config of the job exists from evaluation on, so its file must exist."""
    words = [word for job in [*JOBS, "blackbox"] for word in ("--job", job)]
    done = run("render", "-c", place(tmp_path, CONFIG), "--output", tmp_path / "rendered", *words)
    assert done.code == 0
    assert files(tmp_path / "rendered")["blackbox.json"] == b"[]\n"
    assert len(files(tmp_path / "rendered")) == 5


def test_a_job_that_is_not_listed_is_an_error(tmp_path: Path, run: Run) -> None:
    """Nothing is written, because no scrape config would read the file."""
    words = ("--job", "node", "--job", "prometheus", "--job", "nas")
    done = run("render", "-c", place(tmp_path, CONFIG), "--output", tmp_path / "rendered", *words)
    assert done.code == 2
    assert done.err == (
        "clan-discovery: render: job 'systemd' is not in the list of jobs (nas, node, prometheus): no scrape config "
        "would read systemd.json (add `--job systemd`; on NixOS, services.clan-discovery.jobs)\n"
    )
    assert not (tmp_path / "rendered").exists()


def test_an_empty_list_of_jobs(tmp_path: Path, run: Run) -> None:
    """Without --job every job is allowed; with --only-listed an empty list is complete."""
    done = run("render", "-c", place(tmp_path, CONFIG), "--output", tmp_path / "rendered", "--only-listed")
    assert done.code == 2
    assert len(done.err.splitlines()) == len(JOBS)
    assert "render: job 'node' is not in the list of jobs (none): no scrape config would read node.json" in done.err
    assert not (tmp_path / "rendered").exists()
    (tmp_path / "config.json").write_text(json.dumps({"inventory": CONFIG["inventory"], "server": "monitor"}))
    words = [word for job in JOBS for word in ("--job", job)]
    done = run("render", "-c", tmp_path / "config.json", "--output", tmp_path / "rendered", "--only-listed", *words)
    assert (done.code, files(tmp_path / "rendered")["nas.json"]) == (0, b"[]\n")


def test_a_job_that_is_no_file_name_is_refused(tmp_path: Path, run: Run) -> None:
    """A job becomes a file name."""
    done = run("render", "-c", place(tmp_path, CONFIG), "--output", tmp_path / "rendered", "--job", "../x")
    assert done.code == 2
    assert "invalid job '../x'" in done.err


def test_a_flake_is_refused(tmp_path: Path, run: Run) -> None:
    """It would start Nix within a Nix build. Exit 2, with position and fix."""
    config = tmp_path / "config.yaml"
    config.write_text("inventory: {flake: .}\n")
    done = run("render", "-c", config, "--output", tmp_path / "targets")
    assert done.code == 2
    assert f"{config}:1:20: inventory.flake: a flake would have to be evaluated" in done.err
    assert not (tmp_path / "targets").exists()


@pytest.mark.parametrize(
    ("backends", "server", "named"),
    [
        ({"tailscale": {"tailnet": {}}}, {}, "tailnet"),
        ({"dns": {"lan": {"domain": "lan.example.org"}}}, {}, "lan"),
        ({}, {"discoveryMethod": "tailscale"}, "tailscale"),
        ({}, {"discoveryMethod": ["dns"]}, "dns"),
    ],
)
def test_a_backend_that_has_to_be_asked_is_refused(
    backends: Json, server: Json, named: str, tmp_path: Path, run: Run
) -> None:
    """From the config or from the inventory."""
    config = place(tmp_path, {**CONFIG, "backends": backends}, server)
    done = run("render", "-c", config, "--output", tmp_path / "rendered")
    assert done.code == 2
    assert f"backend '{named}' has to be asked, and render asks no backend (use `refresh`," in done.err
    assert not (tmp_path / "rendered").exists()


@pytest.mark.parametrize("method", ["tailscale", ["dns"]])
def test_without_auto_discovery_the_method_is_ignored(method: Json, tmp_path: Path, run: Run) -> None:
    """It applies only where the declared exporters are scraped."""
    server: Json = {"discoveryMethod": method, "enableAutoDiscovery": False, "staticTargets": {"nas": ["nas:1"]}}
    config = place(tmp_path, {**CONFIG, "backends": {}}, server)
    done = run("render", "-c", config, "--output", tmp_path / "rendered")
    assert (done.code, done.err) == (0, "")
    assert sorted(files(tmp_path / "rendered")) == ["nas.json", "prometheus.json"]


def built(place_: Path, run: Run) -> Path:
    """Render into a directory behind a symlink, as a NixOS build does; return the config."""
    backends: Json = {"static": {"lab": {"targets": {"nas": ["nas.lan:9100"]}}}}
    output: Json = {"directory": "etc/targets", "static": True}
    config = place(place_, {**CONFIG, "backends": backends, "output": output})
    assert run("render", "-c", config, "--output", place_ / "store").code == 0
    (place_ / "etc").mkdir()
    (place_ / "etc/targets").symlink_to(place_ / "store")
    return config


def test_a_static_system_is_healthy(tmp_path: Path, run: Run) -> None:
    """The symlink and the missing state are no findings."""
    done = run("doctor", "-c", built(tmp_path, run))
    assert (done.code, done.err) == (0, "")
    clock, backend, output, *_ = done.out.splitlines()
    assert clock.startswith("ok    clock: ")
    assert backend.startswith("ok    backend lab: ")
    assert output == f"ok    output {tmp_path}/etc/targets: built by Nix; 4 target files"


def test_doctor_finds_an_outdated_static_system(tmp_path: Path, run: Run) -> None:
    """Files of another inventory, a missing file, a dangling link: the fix is a rebuild."""
    config = built(tmp_path, run)
    fix = "      to fix: rebuild the system, and switch to it; Nix makes these files"
    output = f"output {tmp_path}/etc/targets"
    (tmp_path / "store/nas.json").write_text("[]\n")
    done = run("doctor", "-c", config)
    assert done.code == 0
    assert done.out.splitlines()[2:4] == [f"WARN  {output}: not what this config gives: nas.json", fix]
    (tmp_path / "store/node.json").unlink()
    done = run("doctor", "-c", config)
    assert done.code == 5
    assert done.out.splitlines()[2:4] == [f"FAIL  {output}: cannot read node.json: No such file or directory", fix]
    (tmp_path / "etc/targets").unlink()
    (tmp_path / "etc/targets").symlink_to(tmp_path / "gone")
    done = run("doctor", "-c", config)
    assert done.code == 5
    assert "cannot read nas.json: No such file or directory" in done.out


@pytest.mark.parametrize("command", ["refresh", "run"])
def test_refresh_of_a_static_system_is_an_error(command: str, tmp_path: Path, run: Run) -> None:
    """Exit 2 with the fix; nothing is written."""
    config = built(tmp_path, run)
    before = set(tmp_path.iterdir())
    done = run(command, "-c", config)
    assert done.code == 2
    assert f"the target files in {tmp_path}/etc/targets are built by Nix" in done.err
    assert "(change what is declared, and rebuild the system)" in done.err
    assert set(tmp_path.iterdir()) == before


def test_a_static_system_can_be_refreshed_elsewhere(tmp_path: Path, run: Run) -> None:
    """For comparison; `diff` and `explain` work as with a unit."""
    config = built(tmp_path, run)
    assert run("refresh", "-q", "-c", config, "--output", tmp_path / "elsewhere").code == 0
    assert files(tmp_path / "elsewhere") == files(tmp_path / "store")
    assert run("diff", "-c", config, "--exit-code") == type(run("diff", "-c", config))(0, "nothing would change\n", "")
    assert run("explain", "db", "-c", config).code == 0


def test_no_lock_is_taken(tmp_path: Path, run: Run) -> None:
    """A build is alone in its output directory, so a lock of another process does not matter."""
    (tmp_path / "rendered").mkdir()
    with locked(tmp_path / "rendered", 0.0):
        assert run("render", "-c", place(tmp_path, CONFIG), "--output", tmp_path / "rendered").code == 0
    assert sorted(path.name for path in (tmp_path / "rendered").glob("[!.]*")) == [
        f"{job}.json" for job in sorted(JOBS)
    ]


def test_an_unwritable_directory_is_exit_5(tmp_path: Path, run: Run) -> None:
    """With the reason."""
    (tmp_path / "file").write_text("")
    done = run("render", "-c", place(tmp_path, CONFIG), "--output", tmp_path / "file/targets")
    assert done.code == 5
    assert f"cannot write {tmp_path}/file/targets/" in done.err


def agent_config(home: Path, run: Run) -> Path:
    """Write a config with a backend that has to be asked, and an agent with two exporters on loopback."""
    config = place(home, CONFIG | {"backends": {"tailscale": {"tailnet": {"socket": "nothing"}}}})
    inventory = json.loads((home / "inventory.json").read_text())
    exporters: Json = {"node": {"listenAddress": "127.0.0.1"}, "redis": {"listenAddress": "::1"}}
    roles = inventory["instances"]["m"]["roles"]
    roles["exporter"]["machines"]["web"] = {"settings": {"exporters": exporters, "security": "tls"}}
    roles["agent"] = {"machines": {"web": {}}}
    (home / "inventory.json").write_text(json.dumps(inventory))
    assert run("check", "-c", config).code == 0
    return config


def test_the_targets_of_an_agent_need_no_backend(tmp_path: Path, run: Run) -> None:
    """They are where the agent reaches them, with the labels of the server's targets."""
    done = run("render", "-c", agent_config(tmp_path, run), "--output", tmp_path / "out", "--agent", "Web")
    assert (done.code, done.out, done.err) == (0, "3 targets, 3 jobs; 3 files written\n", "")
    found = {name: json.loads(body) for name, body in files(tmp_path / "out").items()}
    assert {name: group["targets"] for name, [group] in found.items()} == {
        "node.json": ["127.0.0.1:9100"],
        "redis.json": ["[::1]:9121"],
        "vmagent.json": ["127.0.0.1:8429"],
    }
    labels = found["node.json"][0]["labels"]
    assert (labels["instance"], labels["machine"], labels.get("__scheme__")) == ("web", "web", None)
    assert labels["__meta_clan_role"] == "exporter"


def test_servers_do_not_share_the_targets_of_an_agent(tmp_path: Path, run: Run) -> None:
    """It scrapes all of them, whichever server its machine is."""
    config = agent_config(tmp_path, run)
    shard: Json = {"member": "mon2", "members": [f"mon{number}" for number in range(20)]}
    config.write_text(json.dumps({**json.loads(config.read_text()), "shard": shard}))
    done = run("render", "-c", config, "--output", tmp_path / "out", "--agent", "web")
    assert (done.code, done.out) == (0, "3 targets, 3 jobs; 3 files written\n")


def test_the_server_gets_nothing_of_an_agent(tmp_path: Path, run: Run) -> None:
    """Its jobs have no files of the types that only agents have."""
    config = agent_config(tmp_path, run)
    config.write_text(json.dumps(CONFIG | {"backends": {}}))
    assert run("render", "-c", config, "--output", tmp_path / "out").code == 0
    found = files(tmp_path / "out")
    assert sorted(found) == ["node.json", "prometheus.json", "systemd.json"]
    assert not any(b'"web"' in body for body in found.values())


def test_the_jobs_of_an_agent_are_listed_like_those_of_a_server(tmp_path: Path, run: Run) -> None:
    """A job without a target is empty, and one that is not listed is an error."""
    config = agent_config(tmp_path, run)
    jobs = ("--job", "node", "--job", "redis", "--job", "other")
    done = run("render", "-c", config, "--output", tmp_path / "out", "--agent", "web", *jobs)
    assert done.code == 2
    assert "job 'vmagent' is not in the list of jobs (node, other, redis)" in done.err
    done = run("render", "-c", config, "--output", tmp_path / "out", "--agent", "web", *jobs, "--job", "vmagent")
    assert done.code == 0
    assert files(tmp_path / "out")["other.json"] == b"[]\n"


def test_a_machine_that_is_no_agent_is_refused(tmp_path: Path, run: Run) -> None:
    """With a suggestion; and fronts are served by the proxy, not by agents."""
    config = agent_config(tmp_path, run)
    for name, hint in (("webb", "did you mean 'web'?"), ("db", "agents are: web")):
        done = run("render", "-c", config, "--output", tmp_path / "out", "--agent", name)
        assert (done.code, done.err) == (2, f"clan-discovery: --agent: {name!r} is no agent ({hint})\n")
    config.write_text(json.dumps(CONFIG | {"front": {"kind": "caddy", "domain": "example.org"}}))
    done = run("render", "-c", config, "--output", tmp_path / "out", "--agent", "web", "--front", tmp_path / "f")
    assert (done.code, "an agent serves no fronts" in done.err) == (2, True)
