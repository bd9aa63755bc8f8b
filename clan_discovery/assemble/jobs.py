"""List the jobs, and find duplicate, unknown and unused ones. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from clan_discovery.inventory.exporters import known_exporters, unknown_type_hint
from clan_discovery.model import CADDY_ADMIN_PORT, Problem
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.endpoint import is_loopback
from clan_discovery.syntax.secret import exposes
from clan_discovery.syntax.suggest import Suggester, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from clan_discovery.backends.base import Backend
    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import Config
    from clan_discovery.model import Declared, Expected, Json, SelectRule

_NAMED_MOST: Final = 20


def jobs_of(declared: Declared, rules: Iterable[SelectRule], backends: Iterable[Backend]) -> frozenset[str]:
    """Return every job that the inventory, a rule, or a backend defines, but those that only agents have."""
    jobs = {expected.exporter.type for expected in declared.expected if expected.delivery == "pull"}
    jobs |= {endpoint.exporter.type for endpoint in declared.endpoints}
    jobs |= {endpoint.exporter.type for server in declared.servers for endpoint in server.static_targets}
    jobs |= {rule.exporter.type for rule in rules}
    return frozenset(jobs.union(*(backend.jobs for backend in backends)))


def reserved_jobs(loaded: LoadedConfig, declared: Declared, jobs: AbstractSet[str]) -> frozenset[str]:
    """Return the jobs that exist or may exist later.

    Excluded jobs and lists that are empty now are included.
    """
    backends = loaded.config.backends
    reserved = {exclusion.job for exclusion in declared.excluded if exclusion.job}
    reserved |= {job for static in backends.static.values() for job in static.targets}
    reserved |= {dns.job for dns in (backends.dns or {}).values() if dns.job}
    reserved |= {job.job for server in declared.servers for job in server.dns}
    return frozenset(reserved | jobs)


def pushed_jobs(declared: Declared) -> frozenset[str]:
    """Return the types of exporters that agents scrape and send."""
    return frozenset(expected.exporter.type for expected in declared.expected if expected.delivery == "push")


def indistinct_exporters(declared: Declared) -> Iterator[Problem]:
    """Yield a problem for each second exporter of one type that an agent would send.

    The receiver forces the label `instance` to the name of the machine: both would write into the same series.
    """
    first: dict[tuple[str, str], Expected] = {}
    for expected in declared.expected:
        machine, type_ = expected.machine.name, expected.exporter.type
        if expected.delivery == "pull":
            continue
        known = first.setdefault((machine, type_), expected)
        if (known.host, known.exporter) != (expected.host, expected.exporter):
            ports = f"port {known.exporter.port} and port {expected.exporter.port}"
            what = f"{machine} is an agent, and has two exporters of the type {type_!r}: {ports}"
            hint = "give one of them a type of its own: an agent sends one exporter of each type"
            where = expected.where or expected.because
            yield Problem(where=where, what=what, hint=hint, severity="problem")


def unused_types(loaded: LoadedConfig, reserved: AbstractSet[str]) -> Iterator[Problem]:
    """Yield a problem for each exporter or scrape config whose type may be a typo.

    The type is unknown, and nothing uses it.
    """
    suggester = Suggester()
    unused = [("exporters", type_) for type_, rule in loaded.config.exporters.items() if rule.select is None]
    unused += [("jobs", type_) for type_ in loaded.config.jobs]
    for key, type_ in unused:
        if type_ not in reserved and type_ not in known_exporters():
            what = f"unknown exporter type {type_!r}, and nothing uses it"
            yield loaded.problem((key, type_), what, unknown_type_hint(type_, suggester))


def unused_scrape_configs(loaded: LoadedConfig, reserved: AbstractSet[str]) -> Iterator[Problem]:
    """Yield a warning for each scrape config of a type without targets."""
    there = first_names(sorted(reserved), _NAMED_MOST) or "none"
    for type_ in sorted(loaded.config.jobs.keys() - reserved):
        hint = did_you_mean(type_, reserved) or f"jobs are: {there}"
        what = f"no target has the exporter type {type_!r}: this scrape config is not used"
        yield loaded.problem(("jobs", type_), what, hint, severity="warning")


def unused_splits(loaded: LoadedConfig, reserved: AbstractSet[str]) -> Iterator[Problem]:
    """Yield a warning for each job of `output.split` that does not exist."""
    there = first_names(sorted(reserved), _NAMED_MOST) or "none"
    for job in sorted(loaded.config.output.split.by_job.keys() - reserved):
        hint = did_you_mean(job, reserved) or f"jobs are: {there}"
        what = f"there is no job {job!r}: this number of files is not used"
        yield loaded.problem(("output", "split", job), what, hint, severity="warning")


def shared_patterns(loaded: LoadedConfig, reserved: AbstractSet[str]) -> Iterator[Problem]:
    """Yield a problem for each split job whose pattern in a scrape config would match files of another job."""
    split = loaded.config.output.split
    for job in sorted(reserved):
        others = [other for other in sorted(reserved) if other.startswith(f"{job}.")]
        if split.count(job) > 1 and others:
            named = first_names(others, _NAMED_MOST)
            what = f"the files of job {job!r}, {split.pattern(job)}.json, would have the targets of {named}, too"
            hint = f"give {others[0]!r} a name that does not begin with '{job}.', or set `split` without {job!r}"
            yield loaded.problem(("output", "split"), what, hint)


def duplicate_jobs(declared: Declared, reserved: AbstractSet[str], inventory: str) -> Iterator[Problem]:
    """Yield a problem for each additional scrape config with the name of another job.

    Prometheus refuses two jobs of one name.
    """
    served = {expected.exporter.type for expected in declared.expected if expected.role == "server"}
    seen: dict[str, Mapping[str, Json]] = {}
    for server in declared.servers:
        path = f"instances.{server.instance}.roles.server.machines.{server.machine}.settings.additionalScrapeConfigs"
        for config in server.additional_scrape_configs:
            name = str(config.get("job_name"))
            hint = "Prometheus refuses two jobs of one name; rename yours"
            if name in reserved:
                what = f"duplicate job {name!r}: there is a job of that name for the exporters of this type"
                if name in served:
                    hint += ", or set `scrapeServers = false`"
            elif seen.setdefault(name, config) != config:
                what = f"duplicate job {name!r}: another server has a different one of that name"
            else:
                continue
            yield Problem(where=f"{inventory}: {path}", what=what, hint=hint)


_EXPOSED: Final = "looks like a secret, and every local user can read the target files"
_GIVE_IT: Final = "give secrets to the scraper, in a scrape config with `authorization.credentials_file`"


def exposed_secrets(loaded: LoadedConfig, declared: Declared) -> Iterator[Problem]:
    """Yield a warning for each parameter or label that looks like a secret.

    Every local user can read target files.
    """
    paths = list(_exposed_in(loaded.config))
    for path in paths:
        yield loaded.problem(path, _EXPOSED, _GIVE_IT, severity="warning")
    exporters = {id(expected.exporter): expected.exporter for expected in declared.expected}
    exposed = {
        (exporter.type, name)
        for exporter in exporters.values()
        for name, value in (*exporter.params, *exporter.labels)
        if exposes(name, value)
    }
    exposed -= {(path[1], path[-1]) for path in paths}
    for type_, name in sorted(exposed):
        yield Problem(where=f"exporter {type_}", what=f"{name!r} {_EXPOSED}", hint=_GIVE_IT, severity="warning")


def _exposed_in(config: Config) -> Iterator[tuple[str, ...]]:
    values: dict[tuple[str, ...], Mapping[str, str]] = {("labels",): config.labels}
    for type_, job in config.jobs.items():
        values["jobs", type_, "params"] = job.params
    for type_, rule in config.exporters.items():
        values["exporters", type_, "params"] = rule.params
        values["exporters", type_, "labels"] = rule.labels
    for path, pairs in values.items():
        yield from ((*path, name) for name, value in pairs.items() if exposes(name, value))


def exposed_admin_ports(declared: Declared) -> Iterator[Problem]:
    """Yield a problem for each target that is Caddy's admin API."""
    for expected in declared.expected:
        exporter = expected.exporter
        if exporter.port == CADDY_ADMIN_PORT and exporter.type == "caddy" and not is_loopback(expected.host):
            what = (
                f"the target caddy on {expected.machine.name} is Caddy's admin API, port {CADDY_ADMIN_PORT}: any "
                "client of it can replace the whole config of Caddy"
            )
            hint = "serve the metrics on a port of their own (`metrics /metrics` in a site), and declare that port"
            yield Problem(where=expected.where or expected.because, what=what, hint=hint, severity="problem")
