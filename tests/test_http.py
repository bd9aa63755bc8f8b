"""`run` with `web`: what is served while cycles succeed, fail, and after a restart."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from tests.support.localapi import Behaviour, localapi
from tests.support.programs import eventually, free_port, get, get_json
from tests.test_run import addresses, body, log_of, replace, resident, write_world

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Done

SEEN = {"monitor": "100.64.0.1:9100", "db": "100.64.0.2:9100"}


def with_web(place: Path, names: list[str]) -> tuple[Path, int]:
    """Write a config that serves HTTP on a free port; return both."""
    config, port = write_world(place, names), free_port()
    config.write_text(config.read_text() + f'web: {{listen: "127.0.0.1:{port}"}}\n')
    return config, port


def status(url: str) -> int:
    """Return the status of a response."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - a server of the test's own
            found: int = answer.status
            return found
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_the_bytes_of_the_target_files_are_served(tmp_path: Path, run: Callable[..., Done]) -> None:
    """In each cycle those of now; the resolution is what `show` prints."""
    config, port = with_web(tmp_path, ["monitor", "db"])
    sd = f"http://127.0.0.1:{port}/sd"
    file = tmp_path / "targets/node.json"
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how,
        resident(config, "--interval", "1s"),
    ):
        eventually("served", lambda: get(f"{sd}/node") == get(sd) == file.read_bytes())
        eventually("seen", lambda: addresses(config) == SEEN)
        assert status(f"{sd}/nothing") == 404
        assert get(f"http://127.0.0.1:{port}/healthz") == b"ok\n"
        assert b"clan_discovery_targets" in get(f"http://127.0.0.1:{port}/metrics")
        shown = json.loads(run("show", "-c", config, "--format", "json").out)
        assert get_json(f"http://127.0.0.1:{port}/api/v1/resolution") == shown
        before = file.read_bytes()
        how.body = body("monitor")
        replace(tmp_path / "inventory.json", (tmp_path / "inventory.json").read_text().replace('"db"', '"d2"'))
        eventually("served", lambda: before != get(f"{sd}/node") == file.read_bytes())


def test_the_last_good_list_is_served_while_cycles_fail(tmp_path: Path) -> None:
    """The state and the target files cannot be written, and tailscaled is down; /healthz says so."""
    config, port = with_web(tmp_path, ["monitor", "db"])
    url = f"http://127.0.0.1:{port}"
    with (
        localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how,
        resident(config, "--interval", "1s"),
    ):
        eventually("served", lambda: status(f"{url}/sd/node") == 200)
        before = get(f"{url}/sd/node")
        how.status = 503
        shutil.rmtree(tmp_path / "targets.state")
        (tmp_path / "targets.state").write_text("")
        (tmp_path / "targets").rename(tmp_path / "old")
        (tmp_path / "targets").write_text("")
        eventually("unhealthy", lambda: status(f"{url}/healthz") == 503)
        assert get(f"{url}/sd/node") == get(f"{url}/sd") == before


def test_a_process_whose_first_cycle_fails_serves_no_list(tmp_path: Path) -> None:
    """503, not an empty list."""
    config, port = with_web(tmp_path, ["monitor"])
    (tmp_path / "targets").write_text("")
    with localapi(tmp_path / "s", Behaviour(body=body("monitor"))), resident(config, "--interval", "1s"):
        eventually("unhealthy", lambda: status(f"http://127.0.0.1:{port}/healthz") == 503)
        for path in ("sd", "sd/node", "sd/x", "metrics", "api/v1/resolution"):
            assert status(f"http://127.0.0.1:{port}/{path}") == 503


def test_a_frozen_job_serves_its_present_file(tmp_path: Path) -> None:
    """The memory is lost while tailscaled is down."""
    config, port = with_web(tmp_path, ["monitor", "db"])
    url = f"http://127.0.0.1:{port}/sd"
    with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how:
        with resident(config, "--interval", "1s"):
            eventually("served", lambda: status(f"{url}/node") == 200)
            before = get(f"{url}/node")
            assert addresses(config) == SEEN
        shutil.rmtree(tmp_path / "targets.state")
        how.status = 503
        with resident(config, "--interval", "1s"):
            eventually("served", lambda: get(f"{url}/node") == get(url) == before)


def without_files(place: Path, names: list[str]) -> tuple[Path, int]:
    """Write a config that serves HTTP and writes no target files."""
    config, port = with_web(place, names)
    config.write_text(config.read_text().replace("directory: targets", "files: false") + "state: state\n")
    return config, port


def test_run_goes_without_files(tmp_path: Path, run: Callable[..., Done]) -> None:
    """Only the state is written; a restart while tailscaled is down serves the last good answer."""
    config, port = without_files(tmp_path, ["monitor", "db"])
    url = f"http://127.0.0.1:{port}/sd"
    there = {file.name for file in tmp_path.iterdir()}
    with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how:
        with resident(config, "--interval", "1s"):
            eventually("served", lambda: status(f"{url}/node") == 200)
            before = get(f"{url}/node")
        assert {group["targets"][0] for group in json.loads(before)} == set(SEEN.values())
        how.status = 503
        with resident(config, "--interval", "1s"):
            eventually("served", lambda: get(f"{url}/node") == get(url) == before)
    assert {file.name for file in tmp_path.iterdir()} - there == {"state", "log"}
    for command in (("refresh",), ("diff",), ("show", "--format", "scrape-config")):
        done = run(*command, "-c", config)
        assert done.code == 2
        assert "config.yaml:3:17: output.files: is false: there are no target files (`run` serves" in done.err
    assert run("history", "-c", config).code == 0
    assert "output" not in run("doctor", "-c", config).out


def test_without_files_a_job_without_memory_is_503(tmp_path: Path) -> None:
    """Nobody knows what the scrapers have: the declared names could replace addresses that they have."""
    config, port = without_files(tmp_path, ["monitor", "db"])
    text = config.read_text()
    config.write_text(text.replace("{tailscale:", "{static: {lan: {machines: {monitor: 10.0.0.1}}}, tailscale:"))
    url = f"http://127.0.0.1:{port}"
    with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"), status=503)) as how:
        with resident(config, "--interval", "1s"):
            eventually("a cycle succeeds", lambda: status(f"{url}/healthz") == 200)
            assert status(f"{url}/sd/node") == status(f"{url}/sd") == 503
            how.status = 200
            eventually("served", lambda: status(f"{url}/sd/node") == 200)
            before = get(f"{url}/sd/node")
        shutil.rmtree(tmp_path / "state")
        how.status = 503
        with resident(config, "--interval", "1s"):
            eventually("a cycle succeeds", lambda: status(f"{url}/healthz") == 200)
            assert status(f"{url}/sd/node") == 503
            how.status = 200
            eventually("served", lambda: get(f"{url}/sd/node") == before)


def test_without_files_a_frozen_job_serves_its_last_list(tmp_path: Path) -> None:
    """The state is damaged while tailscaled is down: the list stays until `policy.max_age` is over."""
    config, port = without_files(tmp_path, ["monitor", "db"])
    url = f"http://127.0.0.1:{port}"
    with localapi(tmp_path / "s", Behaviour(body=body("monitor", "db"))) as how, resident(config, "--interval", "1s"):
        eventually("served", lambda: status(f"{url}/sd/node") == 200)
        before = get(f"{url}/sd/node")
        assert b"100.64.0.2:9100" in before
        how.status = 503

        def is_frozen() -> bool:
            for file in (tmp_path / "state").glob("backend-*.json"):
                replace(file, "{")  # again, if a cycle wrote it meanwhile
            return b'clan_discovery_job_frozen{job="node"} 1' in get(f"{url}/metrics")

        eventually("frozen", is_frozen)
        assert get(f"{url}/sd/node") == get(f"{url}/sd") == before
        replace(config, config.read_text() + "policy: {max_age: 1s}\n")
        eventually("declared addresses", lambda: b"100.64." not in get(f"{url}/sd/node"))
        assert [group["labels"]["machine"] for group in json.loads(get(f"{url}/sd/node"))] == ["db", "monitor"]


def test_the_address_follows_the_config(tmp_path: Path) -> None:
    """Another port, none, and one that is taken: the process goes on, and listens when the port is free."""
    config, port = with_web(tmp_path, ["monitor"])
    text, other = config.read_text(), free_port()
    with localapi(tmp_path / "s", Behaviour(body=body("monitor"))), resident(config, "--interval", "1s"):
        eventually("served", lambda: status(f"http://127.0.0.1:{port}/healthz") == 200)
        replace(config, text.replace(str(port), str(other)))
        eventually("moved", lambda: status(f"http://127.0.0.1:{other}/sd") == 200)
        with socket.create_server(("127.0.0.1", port)):  # the old one is free
            replace(config, text)
            eventually("told", lambda: log_of(config).count("another program listens there") == 1)
        eventually("served", lambda: status(f"http://127.0.0.1:{port}/sd") == 200)
        assert log_of(config).count("HTTP is served") == 1
        replace(config, text.partition("web:")[0])
        eventually("closed", lambda: not accepts(port))


def accepts(port: int) -> bool:
    """Tell whether a port of loopback accepts connections."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_in_use_is_an_error_at_the_start(tmp_path: Path, run: Callable[..., Done]) -> None:
    """With the position in the config."""
    config, port = with_web(tmp_path, ["monitor"])
    with socket.create_server(("127.0.0.1", port)):
        done = run("run", "-c", config)
    assert done.code == 2
    what = f"config.yaml:4:15: cannot serve on '127.0.0.1:{port}': another program listens there"
    assert f"{what} (stop it, or choose another port)" in done.err


def test_a_command_that_serves_nothing_imports_no_server(tmp_path: Path) -> None:
    """Its libraries cost time at the start."""
    config, _ = with_web(tmp_path, ["monitor"])
    command = [sys.executable, "-X", "importtime", "-m", "clan_discovery", "check", "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "clan_discovery" in imported
    assert not imported & {"waitress", "werkzeug", "jinja2"}
