"""The file of the reverse proxy: `refresh` writes it after the target files, and an outage does not move fronts."""

from __future__ import annotations

import io
import json
import resource
import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from clan_discovery.assemble import directories, make_plan
from clan_discovery.config.load import load_config
from clan_discovery.resident.log import Log
from clan_discovery.resident.loop import Daemon
from clan_discovery.resident.notify import Notify
from clan_discovery.resident.plans import Loaded
from tests.support.fleet import node, status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clan_discovery.model import Json
    from tests.conftest import Done

    Run = Callable[..., Done]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a config with one front of `nas`, which a tailnet sees at 100.64.0.1."""
    wiki: Json = {"port": 8080, "metrics": False, "front": {"domain": "wiki"}}
    machines: Json = {"nas": {"expose": {"wiki": wiki, "grafana": {"port": 3000}}, "adopted": []}}
    (tmp_path / "exposed.json").write_text(json.dumps({"machines": machines}))
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "inventory": {"exposed": "exposed.json"},
                "backends": {"tailscale": {"tailnet": {"status_file": "status.json"}}},
                "front": {"kind": "caddy", "domain": "home.example.org", "file": "front/clan.caddy"},
                "output": {"directory": "targets"},
                "state": "state",
            }
        )
    )
    see(tmp_path, "100.64.0.1")
    return tmp_path / "config.json"


def see(home: Path, address: str) -> None:
    """Let the tailnet see `nas` at this address."""
    (home / "status.json").write_text(json.dumps(status([node(1, "nas", TailscaleIPs=[address])])))


def test_refresh_writes_the_file_only_if_its_content_changes(config: Path, run: Run) -> None:
    """It is readable by all; a machine that moves changes it."""
    file = config.parent / "front/clan.caddy"
    done = run("refresh", "-c", config)
    assert (done.code, done.err) == (0, "")
    assert "1 front: file written" in done.out
    assert "reverse_proxy http://100.64.0.1:8080" in file.read_text()
    assert file.read_text() == run("show", "-c", config, "--format", "caddy").out
    assert file.stat().st_mode & 0o777 == 0o644
    before = file.stat().st_ino
    assert "1 front: file unchanged" in run("refresh", "-c", config).out
    assert file.stat().st_ino == before
    see(config.parent, "100.64.0.2")
    assert "1 front: file written" in run("refresh", "-c", config).out
    assert "reverse_proxy http://100.64.0.2:8080" in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == ["clan.caddy"]


def test_output_elsewhere_writes_no_file_of_the_proxy(config: Path, run: Run) -> None:
    done = run("refresh", "-c", config, "--output", config.parent / "elsewhere")
    assert done.code == 0
    assert not (config.parent / "front").exists()


def test_outage_with_a_memory_changes_nothing(config: Path, run: Run) -> None:
    run("refresh", "-c", config)
    (config.parent / "status.json").unlink()
    done = run("refresh", "-c", config)
    assert done.code == 3
    assert "1 front: file unchanged" in done.out


@pytest.mark.parametrize("has_targets", [True, False])
def test_file_is_kept_while_memory_is_lost_and_the_backend_does_not_answer(
    config: Path, run: Run, *, has_targets: bool
) -> None:
    """Also if no target would be kept. When the backend answers, the file is written."""
    if not has_targets:
        exposed = config.parent / "exposed.json"
        exposed.write_text(exposed.read_text().replace(', "grafana": {"port": 3000}', ""))
    file = config.parent / "front/clan.caddy"
    run("refresh", "-c", config)
    before = file.read_text()
    shutil.rmtree(config.parent / "state")
    (config.parent / "status.json").rename(config.parent / "gone.json")
    for _ in range(3):
        done = run("refresh", "-c", config)
        assert done.code == 3
        assert "1 front: file kept" in done.out
        assert "front: keeps its present file: backend tailnet has no answer, and its memory is lost" in done.err
        assert file.read_text() == before
    see(config.parent, "100.64.0.9")
    assert "1 front: file written" in run("refresh", "-c", config).out


def test_without_a_file_fronts_are_written_at_once(config: Path, run: Run) -> None:
    """A backend that has never answered keeps nothing."""
    (config.parent / "status.json").unlink()
    done = run("refresh", "-c", config)
    assert done.code == 3
    assert "1 front: file written" in done.out


def test_file_of_somebody_else_is_not_overwritten(config: Path, run: Run) -> None:
    file = config.parent / "front/clan.caddy"
    file.parent.mkdir()
    file.write_text("example.org {\n}\n")
    done = run("refresh", "-c", config)
    assert done.code == 5
    assert f"{file} was not made by clan-discovery" in done.err
    assert file.read_text() == "example.org {\n}\n"
    assert (config.parent / "targets/grafana.json").exists()


def test_full_disk_keeps_the_old_file(config: Path, run: Run) -> None:
    """RLIMIT_FSIZE stands for a full disk: exit 5, and no temporary file is left."""
    file = config.parent / "front/clan.caddy"
    run("refresh", "-c", config)
    before = file.read_text()
    document: dict[str, dict[str, dict[str, Json]]] = json.loads((config.parent / "exposed.json").read_text())
    wikis: dict[str, Json] = {
        f"wiki{number}": {"port": 8080, "metrics": False, "front": {"domain": f"wiki{number}"}} for number in range(300)
    }
    document["machines"]["nas"]["expose"] = wikis
    (config.parent / "exposed.json").write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-m", "clan_discovery", "refresh", "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 5, done.stderr
    assert "cannot write" in done.stderr
    assert file.read_text() == before
    assert [path.name for path in file.parent.iterdir()] == ["clan.caddy"]


def test_metrics_count_the_fronts_and_the_writes(config: Path, run: Run) -> None:
    for _ in range(2):
        run("refresh", "-c", config, "--metrics-file", config.parent / "own.prom")
    lines = (config.parent / "own.prom").read_text().splitlines()
    assert "clan_discovery_fronts 1.0" in lines
    assert "clan_discovery_front_kept 0.0" in lines
    assert "clan_discovery_front_writes_total 1.0" in lines


def test_run_logs_that_the_file_is_written_and_once_that_it_is_kept(config: Path) -> None:
    stream = io.StringIO()

    def load() -> Loaded:
        loaded = load_config(config)
        return Loaded(directories(loaded), lambda _: make_plan(loaded), (), (), name=str(loaded.file))

    def cycle() -> None:
        Daemon(load=load, log=Log(stream), notify=Notify(None), max_cycles=3, interval=0.01).run()

    cycle()
    shutil.rmtree(config.parent / "state")
    (config.parent / "status.json").rename(config.parent / "gone.json")
    cycle()
    lines = [line for line in stream.getvalue().splitlines() if "front" in line]
    why = "backend tailnet has no answer, and its memory is lost"
    assert lines == [
        'level=info msg="the file of the front is written" fronts=1',
        f'level=warning msg="the present file of the front is kept" reason="{why}"',
    ]


def test_render_writes_the_same_file_without_a_backend(config: Path, run: Run) -> None:
    document: dict[str, Json] = json.loads(config.read_text())
    document["backends"] = {"static": {"lab": {"machines": {"nas": "10.0.0.5"}}}}
    config.write_text(json.dumps(document))
    output = config.parent / "rendered"
    done = run("render", "-c", config, "--output", output, "--front", output / "clan.caddy")
    assert (done.code, done.err) == (0, "")
    assert (output / "clan.caddy").read_text() == run("show", "-c", config, "--format", "caddy").out
    assert "reverse_proxy http://10.0.0.5:8080" in (output / "clan.caddy").read_text()


def test_render_needs_front_in_the_config(config: Path, run: Run) -> None:
    document: dict[str, Json] = json.loads(config.read_text())
    del document["front"]
    config.write_text(json.dumps(document))
    done = run("render", "-c", config, "--output", config.parent / "out", "--front", config.parent / "x")
    assert done.code == 2
    assert "--front: needs `front` in the config" in done.err


def test_check_fails_if_a_front_is_left_out(config: Path, run: Run) -> None:
    """Also for Caddy's admin API as a target."""
    exposed = config.parent / "exposed.json"
    exposed.write_text(exposed.read_text().replace('"domain": "wiki"', '"domain": "wiki", "auth": "oidc"'))
    done = run("check", "-c", config)
    assert done.code == 2
    assert "it demands auth oidc, which the config does not give; it is left out (set front.auth.oidc" in done.err
    exposed.write_text(json.dumps({"machines": {"nas": {"expose": {"caddy": {"port": 2019}}, "adopted": []}}}))
    done = run("check", "-c", config)
    assert done.code == 2
    assert "the target caddy on nas is Caddy's admin API, port 2019" in done.err


def test_without_front_in_the_config_nothing_is_said_of_fronts(config: Path, run: Run) -> None:
    document: dict[str, Json] = json.loads(config.read_text())
    del document["front"]
    config.write_text(json.dumps(document))
    done = run("check", "-c", config)
    assert (done.code, done.err) == (0, "")
    assert "front" not in run("refresh", "-c", config).out


def test_front_of_another_proxy_is_printed_with_the_same_settings(config: Path, run: Run) -> None:
    done = run("show", "-c", config, "--format", "nginx")
    assert (done.code, done.err) == (0, "")
    assert "server_name wiki.home.example.org;" in done.out


def test_doctor_checks_the_file(config: Path, run: Run) -> None:
    """Whether it is there, current and ours."""
    file = config.parent / "front/clan.caddy"
    assert f"WARN  front {file}: it does not exist yet; 1 front" in run("doctor", "-c", config).out
    assert run("refresh", "-c", config).code == 0
    done = run("doctor", "-c", config)
    assert f"ok    front {file}: current; 1 front" in done.out
    see(config.parent, "100.64.0.9")
    assert f"WARN  front {file}: it is not current; 1 front" in run("doctor", "-c", config).out
    file.write_text(":80 {\n}\n")
    done = run("doctor", "-c", config)
    assert (done.code, f"FAIL  front {file}: {file} was not made by clan-discovery" in done.out) == (5, True)
    file.unlink()
    file.mkdir()
    done = run("doctor", "-c", config)
    assert (done.code, f"FAIL  front {file}: {file} is not a regular file" in done.out) == (5, True)


def test_explain_says_that_a_front_is_left_out(config: Path, run: Run) -> None:
    """It is declared, so it must not be called unknown."""
    exposed = config.parent / "exposed.json"
    exposed.write_text(exposed.read_text().replace('"wiki"}', '"wiki", "auth": "basic"}'))
    for word in ("wiki", "wiki.home.example.org"):
        done = run("explain", "-c", config, word)
        assert (done.code, "the front wiki of service wiki is left out (see: clan-discovery check)" in done.err) == (
            2,
            True,
        )


def test_doctor_misses_files_that_the_proxy_reads(config: Path, run: Run) -> None:
    """Caddy refuses its whole config if the file of users is missing."""
    users, certificate = config.parent / "users", config.parent / "cert.pem"
    settings = json.loads(config.read_text())
    settings["front"]["auth"] = {"basic": {"file": str(users)}}
    settings["front"]["tls"] = {"certificate": str(certificate), "key": str(config)}
    config.write_text(json.dumps(settings))
    exposed = config.parent / "exposed.json"
    exposed.write_text(exposed.read_text().replace('"wiki"}', '"wiki", "auth": "basic"}'))
    out = run("doctor", "-c", config).out
    assert f"{users} does not exist: caddy refuses its whole config" in out
    assert f"{certificate} does not exist" in out
    users.write_text("")
    certificate.write_text("")
    assert run("refresh", "-c", config).code == 0
    assert "does not exist" not in run("doctor", "-c", config).out
