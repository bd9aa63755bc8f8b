"""`verify` and real scrapers: each mistake is made by hand, found, and gone after the fix.

Unless a test says otherwise, each of the six scrapers is asked alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.stack.exporters import Answers, certificate_for, node_exporter, node_metrics
from tests.stack.fleet import Fleet, says
from tests.stack.scrapers import VERSIONS, scraper, write_config
from tests.support.programs import free_port, program, scraper_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from clan_discovery.model import Json
    from tests.stack.scrapers import Kind, Which

    Make: TypeAlias = Callable[..., Fleet]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a namespace or another user")
PROMETHEUS = [which for kind, which in VERSIONS if kind == "prometheus"]


@pytest.mark.parametrize(("kind", "which"), VERSIONS)
def test_the_scraper_is_installed(kind: Kind, which: Which) -> None:
    """Otherwise the other tests ask fewer than six."""
    assert Path(scraper_program(kind, which)).exists()


def test_a_job_is_left_out(fleet: Make) -> None:
    """Of two jobs the scraper's config has one."""
    made = fleet("node", "systemd")
    made.serve_all()
    made.refresh()
    made.scrape([job for job in made.jobs() if job["job_name"] == "node"])
    made.expect(
        {"systemd/db": "not_read", "systemd/web": "not_read"},
        says=says("systemd/db", "systemd", "config", fix="clan-discovery show .*--format scrape-config"),
    )
    made.scrape()
    made.expect()


def test_a_rule_drops_a_target(fleet: Make) -> None:
    """The second of two rules; the reason names it."""
    made = fleet()
    made.serve_all()
    rules: Json = [
        {"source_labels": ["__meta_clan_machine_tags"], "target_label": "tags"},
        {"source_labels": ["machine"], "regex": "w.b", "action": "drop"},
    ]
    made.refresh()
    made.scrape([{**job, "relabel_configs": rules} for job in made.jobs()])
    made.expect(
        {"node/web": "dropped"}, says=says("node/web", r"\b(2|second)\b", "drop", r"w\.b", fix="relabel_configs")
    )
    made.scrape()
    made.expect()


def test_a_job_keeps_nothing(fleet: Make) -> None:
    """Without `keep_dropped_targets`, or with a label that is misspelt: no target is left."""
    made = fleet()
    made.serve_all()
    rules: Json = [{"source_labels": ["__meta_clan_machine_tag_prod"], "regex": "1", "action": "keep"}]
    made.refresh()
    made.scrape([{**job, "relabel_configs": rules} for job in made.jobs()])
    made.expect(
        {"node/db": "dropped", "node/web": "dropped"}, says=says("node/db", "keep", "__meta_clan_machine_tag_prod")
    )
    made.scrape()
    made.expect()


def old_copy(made: Fleet) -> list[dict[str, Json]]:
    """Copy the target files; return jobs that read the copy."""
    made.refresh()
    shutil.copytree(made.targets, made.place / "old")
    return [
        {**job, "file_sd_configs": [{"files": [f"{made.place}/old/{job['job_name']}.json"]}]} for job in made.jobs()
    ]


def test_a_stale_copy_without_a_machine(fleet: Make) -> None:
    """The scraper reads another directory, whose file lacks the newest machine."""
    made = fleet()
    made.hosts = {"db": "127.0.0.2"}
    jobs = old_copy(made)
    made.hosts["web"] = "127.0.0.3"
    made.serve_all()
    made.scrape(jobs)
    made.expect(
        {"node/web": "not_read"}, says=says("node/web", f"{made.place}/old/node.json", f"{made.targets}/node.json")
    )
    made.scrape()
    made.expect()


def test_a_stale_copy_with_an_old_address(fleet: Make) -> None:
    """The machine moved; the scraper still asks its old address, where something answers."""
    made = fleet()
    made.hosts["web"] = "127.0.0.9"
    made.serve("web")
    jobs = old_copy(made)
    made.hosts["web"] = "127.0.0.3"
    made.serve_all()
    made.scrape(jobs)
    made.expect({"node/web": "elsewhere"}, says=says("node/web", r"127\.0\.0\.9:", f"{made.place}/old/node.json|reads"))
    made.scrape()
    made.expect()


@needs_root
@pytest.mark.parametrize(("kind", "which"), [("prometheus", "debian"), ("prometheus", "newer"), ("vmagent", "debian")])
def test_a_file_that_the_scraper_cannot_read(fleet: Make, kind: Kind, which: Which) -> None:
    """It runs as another user."""
    made = fleet()
    made.serve_all()
    user = [program("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        place.chmod(0o755)
        made.place = place
        made.refresh()
        file = made.targets / "node.json"
        file.chmod(0o600)
        home = place / "scraper"
        home.mkdir()
        home.chmod(0o777)
        path = Path(shutil.copy(scraper_program(kind, which), place))
        path.chmod(0o755)
        with scraper(kind, which, home, made.jobs(), inside=user, path=str(path)) as member:
            made.members = [member]
            made.expect({"node/db": "not_read", "node/web": "not_read"}, says=says("node/db", "node.json"))
            file.chmod(0o644)
            # Prometheus reads a file again when it is replaced, and otherwise every 5 minutes.
            file.rename(made.place / "moved.json")
            made.refresh()
            made.expect()


def test_two_jobs_read_one_file(fleet: Make) -> None:
    """A job was copied under another name."""
    made = fleet()
    made.serve_all()
    made.refresh()
    (job,) = made.jobs()
    made.scrape([job, {**job, "job_name": "node-exporter"}])
    made.expect(
        {"node/db": "duplicate", "node/web": "duplicate"},
        says=says("node/db", "node-exporter", fix="job node-exporter"),
    )
    made.scrape()
    made.expect()


def test_a_job_by_hand_has_a_target_too(fleet: Make) -> None:
    """The old `static_configs` were left in the config."""
    made = fleet()
    made.serve_all()
    made.refresh()
    by_hand: Json = [{"targets": [f"127.0.0.2:{made.ports['node']}"]}]
    made.scrape([*made.jobs(), {"job_name": "old", "static_configs": by_hand}])
    made.expect({"node/db": "duplicate"}, says=says("node/db", r"\bold\b"))
    made.scrape()
    made.expect()


@needs_root
def test_another_machine_answers(fleet: Make) -> None:
    """Real node exporters; vmagent has no query API and is not asked."""
    made = fleet()
    port = made.ports["node"]
    made.running.enter_context(node_exporter("127.0.0.2", port, "db.example.org", made.place / "db.log"))
    made.scrape()
    with node_exporter("127.0.0.3", port, "attic", made.place / "attic.log"):
        made.expect(
            {"node/web": "wrong_machine"}, only=("prometheus", "victoria-metrics"), says=says("node/web", r"\battic\b")
        )
    made.running.enter_context(node_exporter("127.0.0.3", port, "WEB", made.place / "web.log"))
    made.expect(only=("prometheus", "victoria-metrics"))


def test_an_exporter_without_samples(fleet: Make) -> None:
    """It answers 200 and nothing."""
    made = fleet()
    made.serve_all("node/web")
    answers = made.serve("web", answers=Answers(body=""))
    made.scrape()
    made.expect({"node/web": "empty"}, says=says("node/web", "sample"))
    answers.body = "up_and_well 1\n"
    made.expect()


def test_no_exporter_runs(fleet: Make) -> None:
    """The connection is refused."""
    made = fleet()
    made.serve_all("node/web")
    made.scrape()
    made.expect({"node/web": "down"}, says=says("node/web", "connection refused", fix="web"))
    made.serve("web")
    made.expect()


def test_a_wrong_port(fleet: Make) -> None:
    """The exporter listens at another port than the config says."""
    made = fleet()
    other = free_port()
    made.serve_all("node/web")
    made.serve("web", port=other)
    made.scrape()
    made.expect({"node/web": "down"}, says=says("node/web", "connection refused", rf":{made.ports['node']}\b"))
    made.ports["node"] = other
    made.serve("db")
    made.scrape()
    made.expect()


def test_a_wrong_scheme(fleet: Make) -> None:
    """The exporter speaks TLS, and the config says nothing of it."""
    made = fleet()
    certificate = certificate_for(made.place / "tls", "127.0.0.3")
    made.serve_all("node/web")
    made.serve("web", certificate=certificate)
    made.scrape()
    made.expect({"node/web": "down"}, says=says("node/web", "EOF|malformed|HTTP", fix="https"))
    made.running.close()
    for machine, host in made.hosts.items():
        made.serve(machine, certificate=certificate_for(made.place / machine, host))
    made.exporters["node"] = {"scheme": "https"}
    made.settings["node"] = {"tls_config": {"insecure_skip_verify": True}}
    made.scrape()
    made.expect()


def test_https_to_a_plain_exporter(fleet: Make) -> None:
    """The config says https."""
    made = fleet()
    made.serve_all()
    made.exporters["node"] = {"scheme": "https"}
    made.scrape()
    made.expect(
        {"node/db": "down", "node/web": "down"},
        says=says("node/web", "server gave HTTP response to HTTPS client|first record does not look like", fix="http"),
    )
    made.exporters.clear()
    made.scrape()
    made.expect()


def test_an_expired_certificate(fleet: Make) -> None:
    """Its CA is known."""
    made = fleet("systemd")
    made.hosts = {"web": "127.0.0.3"}
    made.exporters["systemd"] = {"scheme": "https"}
    expired = certificate_for(made.place / "tls", "127.0.0.3", days=-1)
    made.settings["systemd"] = {"tls_config": {"ca_file": str(expired.authority)}}
    made.serve("web", "systemd", certificate=expired)
    made.scrape()
    made.expect({"systemd/web": "down"}, says=says("systemd/web", "certificate has expired", fix="certificate"))
    made.running.close()
    renewed = certificate_for(made.place / "renewed", "127.0.0.3")
    made.settings["systemd"] = {"tls_config": {"ca_file": str(renewed.authority)}}
    made.serve("web", "systemd", certificate=renewed)
    made.scrape()
    made.expect()


def test_a_certificate_of_another_name(fleet: Make) -> None:
    """It is for the address of another machine."""
    made = fleet("systemd")
    made.hosts = {"web": "127.0.0.3"}
    made.exporters["systemd"] = {"scheme": "https"}
    other = certificate_for(made.place / "tls", "127.0.0.2")
    made.settings["systemd"] = {"tls_config": {"ca_file": str(other.authority)}}
    made.serve("web", "systemd", certificate=other)
    made.scrape()
    made.expect(
        {"systemd/web": "down"},
        says=says(
            "systemd/web", r"certificate is valid for 127\.0\.0\.2, not 127\.0\.0\.3", fix="server_name|certificate"
        ),
    )


def test_a_password_is_wanted(fleet: Make) -> None:
    """The exporter answers 401."""
    made = fleet()
    made.serve_all("node/web")
    answers = made.serve("web", answers=Answers(body=node_metrics("web"), login=("scraper", "hunter2")))
    made.scrape()
    made.expect({"node/web": "down"}, says=says("node/web", "401", fix="basic_auth|authorization|password"))
    (made.place / "password").write_text("hunter2")
    made.settings["node"] = {"basic_auth": {"username": "scraper", "password_file": str(made.place / "password")}}
    made.scrape()
    made.expect()
    answers.login = None


def test_a_wrong_path(fleet: Make) -> None:
    """The exporter has its metrics elsewhere."""
    made = fleet("systemd")
    for machine in made.hosts:
        made.serve(machine, "systemd", Answers(path="/own"))
    made.scrape()
    made.expect({"systemd/db": "down", "systemd/web": "down"}, says=says("systemd/web", "404", fix="path"))
    made.exporters["systemd"] = {"path": "/own"}
    made.scrape()
    made.expect()


def test_a_slow_exporter(fleet: Make) -> None:
    """It takes longer than the scrape timeout."""
    made = fleet()
    made.serve_all("node/web")
    answers = made.serve("web", answers=Answers(body=node_metrics("web"), delay_s=300))
    made.scrape()
    made.expect(
        {"node/web": "down"}, says=says("node/web", "context deadline exceeded|timeout|Timeout", fix="scrape_timeout")
    )
    answers.delay_s = 0
    made.expect()


def test_a_web_application_answers(fleet: Make) -> None:
    """At the exporter's port: a page of HTML with status 200."""
    made = fleet()
    made.serve_all("node/web")
    page = "<!DOCTYPE html>\n<html><body>Welcome</body></html>\n"
    made.serve("web", answers=Answers(body=page, content_type="text/html"))
    made.scrape()
    invalid = says("node/web", "text/html|expected|unsupported|invalid|INVALID")
    made.expect({"node/web": "down"}, only=("prometheus",), says=invalid)
    # VictoriaMetrics skips lines that it cannot parse.
    made.expect({"node/web": "empty"}, only=("victoria-metrics", "vmagent"), says=says("node/web", "sample"))


def test_a_ghost_in_our_job(fleet: Make) -> None:
    """Beside our file the job reads one that somebody wrote by hand, with a machine that is gone."""
    made = fleet()
    made.serve_all()
    made.refresh()
    by_hand = made.place / "by-hand.json"
    gone = f"127.0.0.8:{made.ports['node']}"
    by_hand.write_text(json.dumps([{"targets": [gone], "labels": {"instance": "gone"}}]))
    files: Json = [f"{made.targets}/node.json", str(by_hand)]
    made.scrape([{**job, "file_sd_configs": [{"files": files}]} for job in made.jobs()])
    for name, found in made.expect(ghosts=1).items():
        (ghost,) = found.ghosts
        assert (ghost.scraper, ghost.job, ghost.instance, ghost.address) == (name, "node", "gone", gone)
        assert ghost.reason, name
        assert ghost.fix, name
    made.scrape()
    made.expect()


def test_an_old_config_is_still_running(fleet: Make) -> None:
    """The config has a second job; nobody reloaded the scraper."""
    made = fleet("node")
    made.serve_all()
    made.scrape()
    made.expect()
    made.ports["systemd"] = free_port()
    for machine in made.hosts:
        made.serve(machine, "systemd", Answers())
    made.refresh()
    for member in made.members:
        write_config(member.place, made.jobs())
    made.expect(
        {"systemd/db": "not_read", "systemd/web": "not_read"},
        says=says("systemd/web", "systemd", fix="reload|SIGHUP|HUP"),
    )
    for member in made.members:
        member.process.send_signal(signal.SIGHUP)
    made.expect()


def test_a_rule_changes_the_address(fleet: Make) -> None:
    """A rule for a proxy was copied from another job: nothing listens there. The reason names the address."""
    made = fleet()
    other = free_port()
    made.serve_all()
    proxy = f"127.0.0.3:{other}"
    rules: Json = [{"source_labels": ["machine"], "regex": "web", "target_label": "__address__", "replacement": proxy}]
    made.refresh()
    made.scrape([{**job, "relabel_configs": rules} for job in made.jobs()])
    made.expect({"node/web": "down"}, says=says("node/web", "connection refused", rf"127\.0\.0\.3:{other}\b"))
    made.scrape()
    made.expect()


def test_a_job_reads_the_file_of_another(fleet: Make) -> None:
    """A path was copied: job `systemd` scrapes node exporters."""
    made = fleet("node", "systemd")
    made.serve_all()
    made.refresh()
    node = f"{made.targets}/node.json"
    made.scrape([{**job, "file_sd_configs": [{"files": [node]}]} for job in made.jobs()])
    wrong = {"systemd/db": "not_read", "systemd/web": "not_read", "node/db": "duplicate", "node/web": "duplicate"}
    made.expect(wrong, says=says("systemd/db", f"{made.targets}/systemd.json", node))
    made.scrape()
    made.expect()


def test_a_limit_of_samples(fleet: Make) -> None:
    """The job's `sample_limit` is below what an exporter writes."""
    made = fleet()
    made.serve_all("node/web")
    answers = made.serve("web", answers=Answers(body="".join(f'many{{n="{n}"}} 1\n' for n in range(50))))
    made.settings["node"] = {"sample_limit": 20}
    made.scrape()
    made.expect({"node/web": "down"}, says=says("node/web", "sample_?[lL]imit|sample limit", fix="sample_limit"))
    answers.body = "one 1\n"
    made.expect()


def test_a_limit_of_targets(fleet: Make) -> None:
    """Prometheus fails all targets of a job that has more than `target_limit`."""
    made = fleet()
    made.serve_all()
    made.settings["node"] = {"target_limit": 1}
    made.scrape()
    made.expect(
        {"node/db": "down", "node/web": "down"},
        only=("prometheus",),
        says=says("node/db", "target_limit exceeded", fix="target_limit"),
    )
    made.settings.clear()
    made.scrape()
    made.expect(only=("prometheus",))


def test_a_file_that_somebody_broke(fleet: Make) -> None:
    """Edited by hand: most scrapers keep the old targets, and none reads the new machine."""
    made = fleet()
    made.hosts = {"db": "127.0.0.2"}
    made.serve("db")
    made.scrape()
    made.expect()
    made.hosts["web"] = "127.0.0.3"
    made.serve("web")
    file = made.targets / "node.json"
    file.write_text(file.read_text().replace("]", "", 1))
    made.age()
    old = ("prometheus", "1.79.5")
    reason = says("node/web", "node.json", fix="refresh")
    made.expect({"node/web": "not_read"}, only=old, says=reason)
    made.expect({"node/db": "not_read", "node/web": "not_read"}, only=("1.131.0",), says=reason)
    made.refresh()
    made.expect()


def test_the_files_are_not_refreshed(fleet: Make) -> None:
    """A machine was added to the inventory; the target files are older."""
    made = fleet()
    made.hosts = {"db": "127.0.0.2"}
    made.serve("db")
    made.scrape()
    made.expect()
    made.hosts["web"] = "127.0.0.3"
    made.serve("web")
    made.expect({"node/web": "not_read"}, says=says("node/web", fix="clan-discovery refresh"))
    made.refresh()
    made.expect()
