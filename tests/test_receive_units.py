"""The units that give Debian's nginx, and vmauth, the tokens of agents: rendered by Nix and run by a real systemd."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.programs import eventually, program, scraper_program
from tests.support.remote_write import HEADERS, Series, write_request
from tests.support.systemd import booted, unit_text

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from clan_discovery.model import Json
    from tests.support.systemd import Machine

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("nginx", "vmauth")
RECEIVE = "clan-discovery-receive.service"
RELOAD = "clan-discovery-receive-reload.service"
UNITS: Final = {"nginx": "nginx.service", "vmauth": "clan-discovery-vmauth.service"}
URLS: Final = {"nginx": "http://127.0.0.1:8080", "vmauth": "https://127.0.0.1:8427"}
STORE = "http://127.0.0.1:8428"

# As NixOS runs it: as its user, with a check of the configuration in each reload.
NGINX = """[Service]
User=www-data
Group=www-data
RuntimeDirectory=nginx
ExecStartPre=/usr/sbin/nginx -t -q -c /opt/share/nginx.conf
ExecStart=/usr/sbin/nginx -c /opt/share/nginx.conf
ExecReload=/usr/sbin/nginx -t -q -c /opt/share/nginx.conf
ExecReload=/bin/kill -HUP $MAINPID
InaccessiblePaths=-/var/lib/clan-discovery
"""
NGINX_CONFIG = """daemon off;
pid /run/nginx/nginx.pid;
error_log stderr;
events { }
http {
  access_log off;
  client_body_temp_path /run/nginx/a;
  proxy_temp_path /run/nginx/b;
  fastcgi_temp_path /run/nginx/c;
  uwsgi_temp_path /run/nginx/d;
  scgi_temp_path /run/nginx/e;
  server { listen 8080; server_name own.test; location / { return 200 own; } }
  include @INCLUDED@;
}
"""
VICTORIAMETRICS = """[Service]
DynamicUser=true
StateDirectory=store
ExecStart=/usr/bin/victoria-metrics -storageDataPath=/var/lib/store -httpListenAddr=127.0.0.1:8428 \
  -search.latencyOffset=0s -memory.allowedBytes=128MB
"""


def rendered(kind: str, tokens: Mapping[str, list[str]]) -> dict[str, Json]:
    """Return the units, the script and the paths that Nix renders."""
    given = json.dumps(json.dumps({"kind": kind, "tokens": tokens}))
    words = [program("nix-instantiate"), "--eval", "--strict", "--json", "--store", "dummy://", "-E"]
    words.append(f"import {ROOT}/tests/nix/receive-unit.nix (builtins.fromJSON {given})")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "NIX_PATH": ""})
    assert done.returncode == 0, done.stderr
    found: dict[str, Json] = json.loads(done.stdout)
    return found


def unit_of(found: dict[str, Json], name: str) -> str:
    """Return the text of one rendered unit, with the program where the bed has it."""
    unit = found[name]
    assert isinstance(unit, dict)
    return unit_text(unit, "Service").replace("/opt/share/bin/", "/opt/share/")


@pytest.mark.parametrize("kind", KINDS)
def test_systemd_accepts_the_units(kind: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` prints nothing, and the exposure is low."""
    found = rendered(kind, {"dino": ["/run/secrets/dino"]})
    (tmp_path / RECEIVE).write_text(unit_of(found, "service"))
    (tmp_path / RELOAD).write_text(unit_of(found, "reload"))
    (tmp_path / "nginx.service").write_text("[Service]\nExecStart=/bin/true\n")
    text = re.sub(r"/opt/share/vmauth", "/bin/true", unit_of(found, "vmauth"))
    (tmp_path / UNITS["vmauth"]).write_text(text)
    for file in tmp_path.iterdir():
        file.write_text(file.read_text().replace("/opt/share/clan-discovery", "/bin/true"))
    analyze = program("systemd-analyze")
    verified = subprocess.run(
        [analyze, "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    for name, most in ((RECEIVE, 1.5), (UNITS["vmauth"], 2.5)):
        command = [analyze, "security", "--offline=true", "--no-pager", str(tmp_path / name)]
        judged = subprocess.run(command, capture_output=True, text=True, check=True)
        exposure = re.search(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
        assert exposure is not None
        assert float(exposure[1]) <= most, judged.stdout


class Bed:
    """A booted systemd with a receiver, its units and VictoriaMetrics."""

    def __init__(self, kind: str, machine: Machine, found: dict[str, Json]) -> None:
        self.kind = kind
        self.machine = machine
        self.file = str(found["file"])
        self.tokens: dict[str, str] = {}

    def token(self, name: str, token: str | None = None) -> str:
        """Write a token file as an administrator does: only root may read it."""
        token = token or secrets.token_urlsafe(32)
        folder = self.machine.share / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).write_text(f"{token}\n")
        (folder / name).chmod(0o600)
        return token

    def config(self, **front: Json) -> None:
        """Write the config, with more keys of `front`."""
        roles: Json = {"agent": {"machines": {"dino": {}, "nas": {}}}}
        inventory: Json = {
            "machines": {"dino": {"tags": ["laptop"]}, "nas": {}, "web": {}},
            "instances": {"monitoring": {"module": {"name": "prometheus"}, "roles": roles}},
        }
        (self.machine.share / "inventory.json").write_text(json.dumps(inventory))
        receive: dict[str, Json] = {
            "kind": self.kind,
            "tokens": f"/run/credentials/{RECEIVE}",
            "metrics": STORE,
            "file": self.file,
        }
        if self.kind == "nginx":
            receive["group"] = "www-data"
        given: dict[str, Json] = {
            "kind": "nginx",
            "machine": "web",
            "domain": "home.test",
            "listen": ["127.0.0.1"],
            "ports": {"http": 8080},
            "receive": receive,
            **front,
        }
        config: Json = {
            "inventory": {"file": "inventory.json"},
            "front": given,
            "output": {"directory": "/var/lib/clan-discovery/targets"},
            "state": "/var/lib/clan-discovery/state",
        }
        (self.machine.share / "config.json").write_text(json.dumps(config))

    def restart(self) -> bool:
        """Restart the unit of the tokens, as an activation does whose secrets have changed; tell whether it works."""
        done = self.machine.command("systemctl", "restart", RECEIVE)
        # It starts when the unit above has ended.
        eventually("the reload is done", lambda: not self.machine.show(RELOAD, "ActiveState").startswith("activ"))
        eventually("no job is left", lambda: "No jobs" in self.machine.ctl("list-jobs"))
        return done.returncode == 0

    def send(self, token: str, machine: str = "", name: str = "sent") -> str:
        """Send a sample that says to be from a machine; return the status of the answer."""
        labels = [("__name__", name), ("instance", machine), ("machine", machine)]
        body = write_request([Series([(key, value) for key, value in labels if value], [(time.time(), 1.0)])])
        (self.machine.share / "body").write_bytes(body)
        headers = {**HEADERS, "Host": "push.home.test"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        words = [word for key, value in headers.items() for word in ("-H", f"{key}: {value}")]
        words += ["-sk", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "@/opt/share/body"]
        return self.machine.command("curl", *words, f"{URLS[self.kind]}/api/v1/write").stdout

    def await_answer(self, token: str, status: str) -> None:
        """Wait until the receiver gives this status."""
        eventually(f"{self.kind} answers {status}", lambda: self.send(token) == status)

    def stored(self, name: str = "sent") -> list[tuple[str, str]]:
        """Return machine and instance of each series of a name."""
        said = self.machine.command("curl", "-sG", f"{STORE}/api/v1/export", "-d", f"match[]={name}").stdout
        metrics: list[dict[str, str]] = [json.loads(line)["metric"] for line in said.splitlines()]
        return sorted((metric["machine"], metric["instance"]) for metric in metrics)

    def content(self) -> str:
        """Return what the receiver reads."""
        done = self.machine.command("cat", self.file)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextlib.contextmanager
def receiving(kind: str, tokens: Mapping[str, list[str]] | None = None) -> Generator[Bed]:
    """Boot a systemd in which a receiver starts with a token of dino and one of nas."""
    vmauth = scraper_program("vmauth", "newer") if kind == "vmauth" else program("nginx")
    program("victoria-metrics")
    files = tokens or {"dino": ["/opt/share/secrets/dino"], "nas": ["/opt/share/secrets/nas"]}
    found = rendered(kind, files)
    units = {
        RECEIVE: unit_of(found, "service"),
        RELOAD: unit_of(found, "reload"),
        "nginx.service": NGINX,
        UNITS["vmauth"]: unit_of(found, "vmauth"),
        "victoriametrics.service": VICTORIAMETRICS,
    }
    with booted(units) as machine:
        (machine.share / "nginx.conf").write_text(NGINX_CONFIG.replace("@INCLUDED@", str(found["included"])))
        (machine.share / "receive").write_text(str(found["script"]))
        user = str(found["user"])
        added = f"echo '{user}:x:4713:4713::/:/bin/false' >> /etc/passwd; echo '{user}:x:4713:' >> /etc/group"
        machine.command("sh", "-c", added)
        if kind == "vmauth":
            machine.command("cp", vmauth, "/opt/share/vmauth")
            _certificate(machine.share)
        bed = Bed(kind, machine, found)
        bed.config()
        bed.tokens = {name: bed.token(name) for name in ("dino", "nas")}
        machine.ctl("daemon-reload")
        machine.ctl("enable", RECEIVE)
        machine.ctl("start", "victoriametrics.service", UNITS[kind])
        bed.await_answer(bed.tokens["dino"], "204")
        yield bed


def _certificate(folder: Path) -> None:
    command = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=push.home.test"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "key.pem").chmod(0o644)


@pytest.mark.parametrize("kind", KINDS)
def test_the_receiver_starts_with_the_tokens(kind: str) -> None:
    """A start of the receiver writes its file first. The name is that of the token, not the one that is sent."""
    with receiving(kind) as bed:
        assert bed.send(bed.tokens["nas"], "dino", "forged") == "204"
        assert (bed.send("", "dino", "forged"), bed.send("x" * 43, "dino", "forged")) == ("401", "401")
        eventually("it is stored", lambda: bed.stored("forged") == [("nas", "nas")])
        status = bed.machine.command("stat", "-c", "%U:%G %a", bed.file).stdout.strip()
        user = "clan-discovery-receive"
        assert status == (f"{user}:www-data 640" if kind == "nginx" else f"{user}:{user} 600")
        as_scraper = ("setpriv", "--reuid=4712", "--regid=4712", "--clear-groups", "cat", bed.file)
        assert "Permission denied" in bed.machine.command(*as_scraper).stderr


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_is_in_a_log_or_a_command_line(kind: str) -> None:
    """Also not in an environment, and in no file that others can read."""
    with receiving(kind) as bed:
        bed.send("y" * 43)
        bed.restart()
        bed.await_answer(bed.tokens["dino"], "204")
        said = bed.machine.command("journalctl", "--no-pager", "-o", "export").stdout
        # Not those of this test's own curl.
        shown = bed.machine.command("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ").stdout
        assert "Give" in said
        for token in bed.tokens.values():
            assert token not in said
            assert token not in shown
        patterns = [word for token in bed.tokens.values() for word in ("-e", token)]
        searched = bed.machine.command(
            *("setpriv", "--reuid=4712", "--regid=4712", "--clear-groups"),
            *("grep", "-rslF", *patterns, "/run", "/etc", "/var"),
        )
        assert searched.stdout == ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_token_is_taken_without_a_restart(kind: str) -> None:
    """The process stays the same; the new token is valid, and the old one is not."""
    with receiving(kind) as bed:
        process = bed.machine.show(UNITS[kind], "MainPID")
        new = bed.token("dino")
        assert bed.restart()
        bed.await_answer(new, "204")
        assert bed.send(bed.tokens["dino"]) == "401"
        assert bed.send(bed.tokens["nas"]) == "204"
        assert bed.machine.show(UNITS[kind], "MainPID") == process


def test_two_tokens_of_a_machine_are_valid() -> None:
    """During a rotation."""
    places = {"dino": ["/opt/share/secrets/dino", "/opt/share/secrets/dino-old"], "nas": ["/opt/share/secrets/nas"]}
    with receiving("nginx", places) as bed:
        old = bed.token("dino-old")
        assert bed.restart()
        bed.await_answer(old, "204")
        assert bed.send(bed.tokens["dino"]) == "204"
        eventually("both are dino's", lambda: bed.stored() == [("dino", "dino")])


@pytest.mark.parametrize("kind", KINDS)
def test_two_machines_with_one_token_are_refused(kind: str) -> None:
    """The unit fails and names both; the old file stays, and both go on with their old tokens."""
    with receiving(kind) as bed:
        before = bed.content()
        bed.token("nas", bed.tokens["dino"])
        assert not bed.restart()
        assert bed.machine.show(RECEIVE, "ExecMainStatus") == "2"
        said = bed.machine.journal(RECEIVE)
        assert "dino and nas have the same token" in said
        assert bed.tokens["dino"] not in said
        assert bed.content() == before
        assert [bed.send(token) for token in bed.tokens.values()] == ["204", "204"]


def test_a_missing_file_stops_nobody_else() -> None:
    """Without it, systemd would not start the unit. A warning names the machine."""
    with receiving("nginx") as bed:
        (bed.machine.share / "secrets" / "dino").unlink()
        assert bed.restart()
        bed.await_answer(bed.tokens["dino"], "401")
        assert bed.send(bed.tokens["nas"]) == "204"
        assert "the token file of dino is empty" in bed.machine.journal(RECEIVE)


def test_a_config_that_nginx_refuses_is_taken_back() -> None:
    """The unit of the reload fails; nginx goes on, also after a restart, and the next good file is taken."""
    with receiving("nginx") as bed:
        good = bed.content()
        missing: Json = {"certificate": "/nonexistent.pem", "key": "/nonexistent.pem"}
        bed.config(tls=missing, ports={"http": 8081, "https": 8080})
        assert bed.restart()
        assert bed.machine.show(RELOAD, "Result") == "exit-code"
        assert "nginx.service does not take the new" in bed.machine.journal(RELOAD)
        assert bed.content() == good
        assert bed.send(bed.tokens["dino"]) == "204"
        bed.machine.ctl("stop", RECEIVE)
        bed.config()
        bed.machine.ctl("restart", "nginx.service")
        bed.await_answer(bed.tokens["dino"], "204")
        new = bed.token("dino")
        assert bed.restart()
        bed.await_answer(new, "204")
        left = bed.machine.command("ls", "/run/clan-discovery-receive").stdout.split()
        assert left == ["nginx.conf", "refused"]
