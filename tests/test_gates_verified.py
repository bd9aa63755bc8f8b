"""What is evidence of a checklist: targets of a machine, machines that are away, silent programs, open ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from clan_discovery.gates.sockets import ListeningSocket
from clan_discovery.gates.unpublished import judge_ports
from clan_discovery.gates.verified import judge_verification
from clan_discovery.model import Declared, Front, Ghost, Program, Verdict, Verification, Verified
from tests.support.answering import resolution_of, target_of

if TYPE_CHECKING:
    from clan_discovery.gates.judge import EvidenceResult

LAPTOP = msgspec.structs.replace(
    target_of("node", "dino", "127.0.0.1:9100"), delivery="push", patience="roaming", observed=False
)
ALWAYS = msgspec.structs.replace(LAPTOP, machine="web", labels={"instance": "web"}, patience="always")
RESOLUTION = msgspec.structs.replace(resolution_of([]), pushed=(LAPTOP, ALWAYS), aliases={"storage": "nas"})


def verified(machine: str, verdict: Verdict, reason: str = "") -> Verified:
    """Return the verdict on the node exporter of a machine."""
    return Verified(
        job="node", machine=machine, instance=machine, address="10.0.0.1:9100", verdict=verdict, reason=reason
    )


@pytest.mark.parametrize(
    ("machine", "result", "words"),
    [
        ("nas", "holds", "1 target: 1 up"),
        ("NAS", "holds", "1 target: 1 up"),
        ("storage", "holds", "1 target: 1 up"),
        ("web", "contradicts", "node of web is down"),
        ("nass", "contradicts", "no target is expected on nass"),
    ],
)
def test_only_the_named_machine_counts(machine: str, result: EvidenceResult, words: str) -> None:
    """Neither the fault of another machine, nor a ghost, nor a program that does not answer."""
    ghost = Ghost(scraper="one", job="node", instance="old", address="10.0.0.9:9100")
    silent = Program(name="grafana", url="http://127.0.0.1:3000", ok=False, reason="refused")
    targets = (verified("nas", Verdict.UP), verified("web", Verdict.DOWN))
    found = Verification(at=1.0, targets=targets, ghosts=(ghost,), asked=(silent,))
    judged = judge_verification(found, RESOLUTION, [machine])
    assert judged.result == result
    assert words in judged.what
    if machine == "nass":
        assert "nas" in judged.fix.split("'")


@pytest.mark.parametrize(
    ("target", "result", "words"),
    [
        (verified("dino", Verdict.PENDING), "holds", "1 pending"),
        (verified("dino", Verdict.UNKNOWN), "unknown", "node of dino is unknown"),
        (verified("dino", Verdict.DOWN), "contradicts", "node of dino is down"),
        (verified("web", Verdict.PENDING), "unknown", "node of web is pending"),
        (verified("web", Verdict.PENDING, "no sample yet"), "unknown", "no sample yet"),
    ],
)
def test_laptop_may_be_away(target: Verified, result: EvidenceResult, words: str) -> None:
    """Another machine that sends nothing is no evidence, and a fault of the laptop is one."""
    judged = judge_verification(Verification(at=1.0, targets=(target,)), RESOLUTION, [])
    assert (judged.result, words in judged.what) == (result, True), judged.what


def test_program_that_does_not_answer_is_unknown() -> None:
    """A fault that is known all the same contradicts."""
    silent = Program(name="two", url="http://127.0.0.1:9", ok=False, reason="connection refused")
    for verdict, result in ((Verdict.UP, "unknown"), (Verdict.DOWN, "contradicts")):
        found = Verification(at=1.0, targets=(verified("nas", verdict),), asked=(silent,))
        assert judge_verification(found, RESOLUTION, []).result == result


def test_sockets_that_cannot_be_read_are_unknown() -> None:
    """Only where a target is on loopback of this machine."""
    for machine, result in (("dino", "unknown"), ("monitor", "holds")):
        resolution = msgspec.structs.replace(RESOLUTION, pushed=(LAPTOP,))
        assert judge_ports(Declared(), resolution, machine, None).result == result


@pytest.mark.parametrize(
    ("machine", "address", "host", "result"),
    [
        ("nas", "127.0.0.1:3000", "0.0.0.0", "contradicts"),  # noqa: S104 - the mistake
        ("nas", "127.0.0.1:3000", "127.0.0.1", "holds"),
        ("nas", "10.0.0.1:3000", "0.0.0.0", "holds"),  # noqa: S104 - the proxy of another machine needs it
        ("nas", "127.0.0.1:8096", "0.0.0.0", "holds"),  # noqa: S104 - another service
        ("web", "127.0.0.1:3000", "0.0.0.0", "holds"),  # noqa: S104 - the port of another machine
    ],
)
def test_port_behind_a_proxy_on_loopback_is_open(machine: str, address: str, host: str, result: EvidenceResult) -> None:
    """The scraper needs the port of nas, unless the reverse proxy there connects to it on loopback."""
    port = int(address.rpartition(":")[2])
    front = Front(service="grafana", domain="grafana", machine=machine, port=port, address=address, because="x")
    resolution = msgspec.structs.replace(resolution_of([target_of("grafana", "nas", "10.0.0.1:3000")]), fronts=(front,))
    judged = judge_ports(Declared(), resolution, "NAS", [ListeningSocket(host, 3000, host == "127.0.0.1")])
    assert judged.result == result, judged.what
