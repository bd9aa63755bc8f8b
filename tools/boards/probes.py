"""The panel of probes, which the boards `fleet` and `host` have."""

from __future__ import annotations

from tools.boards.model import Column, Look, Panel, Query, Step, Word
from tools.boards.queries import TO_HOST, limit_steps


def probes(where: str = "") -> Panel:
    """Return what blackbox exporter sees, of all machines or of one."""
    left = f"(probe_ssl_earliest_cert_expiry{{{where}}} - time()) / 86400"
    days = limit_steps("certificate_days")[0].value
    return Panel(
        title="Probes",
        about="What blackbox exporter sees from outside. A certificate is red when CertExpiry fires.",
        kind="table",
        queries=(
            Query(f"max by (machine, instance, job) (probe_success{{{where}}})"),
            Query(f"max by (machine, instance, job) (probe_duration_seconds{{{where}}})"),
            Query(f"min by (machine, instance, job) ({left})"),
        ),
        columns=(
            Column(field="machine", title="Machine", links=TO_HOST),
            Column(field="job", title="Job"),
            Column(field="instance", title="Instance"),
            Column(field=0, title="Answers", look=Look(words=(Word(0, "no", "red"), Word(1, "yes", "green")))),
            Column(field=1, title="Time", look=Look(unit="s", base="text")),
            Column(field=2, title="Certificate", look=Look(unit="d", base="red", steps=(Step(days, "green"),))),
        ),
        empty="no probe is scraped",
    )
