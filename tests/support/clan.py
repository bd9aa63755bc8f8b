"""What a machine of a clan has, as tests/nix/machine.nix shows it: typed, so that a test reads like the thing."""

from __future__ import annotations

import msgspec


class Group(msgspec.Struct, frozen=True):
    """Targets that stand in a job."""

    targets: list[str]
    labels: dict[str, str] = {}


class Files(msgspec.Struct, frozen=True):
    """Files that a job reads."""

    files: list[str]
    refresh_interval: str | None = None


class Relabel(msgspec.Struct, frozen=True):
    """A rule of relabelling."""

    source_labels: list[str] = []
    regex: str | None = None
    modulus: int | None = None
    target_label: str | None = None
    action: str | None = None


class Job(msgspec.Struct, frozen=True):
    """A scrape config."""

    job_name: str
    static_configs: list[Group] = []
    file_sd_configs: list[Files] = []
    relabel_configs: list[Relabel] = []


class Interface(msgspec.Struct, frozen=True):
    """What is open on a network interface."""

    allowed_tcp_ports: list[int] = msgspec.field(name="allowedTCPPorts")


class Exporter(msgspec.Struct, frozen=True, rename="camel"):
    """An exporter of NixOS that is enabled."""

    port: int
    open_firewall: bool
    listen_address: str
    extra_flags: list[str]
    enabled_collectors: list[str] | None = None


class Seen(msgspec.Struct, frozen=True):
    """A machine."""

    failed: list[str]
    warnings: list[str]
    interfaces: dict[str, Interface]
    jobs: list[Job]
    exporters: dict[str, Exporter]
    everywhere: list[int] = msgspec.field(name="allowedTCPPorts")

    def names(self) -> list[str]:
        """Return the names of the jobs."""
        return [job.job_name for job in self.jobs]

    def job(self, name: str) -> Job:
        """Return the one job of a name."""
        (found,) = (job for job in self.jobs if job.job_name == name)
        return found

    def addresses(self, name: str) -> list[str]:
        """Return the targets that stand in a job itself."""
        return [target for group in self.job(name).static_configs for target in group.targets]

    def ports(self) -> dict[str, list[int]]:
        """Return the open ports by interface."""
        return {name: interface.allowed_tcp_ports for name, interface in self.interfaces.items()}


def seen(document: object) -> Seen:
    """Read what Nix said of a machine."""
    return msgspec.convert(document, Seen)


def job(document: object) -> Job:
    """Read one scrape config."""
    return msgspec.convert(document, Job)
