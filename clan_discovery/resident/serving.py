"""Listen on the addresses of the config and the command line, and hold what is served there."""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.emit.json import pretty, resolution_document
from clan_discovery.errors import refuse
from clan_discovery.memory import read_history
from clan_discovery.publish.state import State
from clan_discovery.round import limits_of
from clan_discovery.syntax.endpoint import is_loopback, join_endpoint, split_endpoint
from clan_discovery.web.site import Body, Cycle, Lazy, Site, Unserved, join_lists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.emit.states import AddressTimes
    from clan_discovery.model import ChangeRecord, Report, Resolution, Verification
    from clan_discovery.round import Plan, Refreshed
    from clan_discovery.web.access import Access
    from clan_discovery.web.server import Listener
    from clan_discovery.web.site import MachineStatuses

_METRICS_OPTION: Final = "--metrics-listen"


class WebSettings(NamedTuple):
    """The `web` of a config: where to listen. `where` is its position in the config, for messages.

    `links` are the URLs of dashboards by title, `scrapers` those of scrapers by name, and `config` is the path of the
    config: for the status page.
    """

    listen: str
    where: str = ""
    links: Mapping[str, str] = {}
    scrapers: Mapping[str, str] = {}
    config: str = ""


class Serving:
    """The listeners, and the site that they serve."""

    def __init__(self) -> None:
        self.site = Site()
        self._metrics: Listener | None = None
        self._web: Listener | None = None
        self._settings: WebSettings | None = None

    def open_metrics(self, address: str) -> None:
        """Listen for scrapes of the metrics.

        Raises:
            InputError: the address is not one of loopback, or is not available.
        """
        try:
            host, port = _loopback(address)
        except ValueError as error:
            refuse(_METRICS_OPTION, f"cannot serve on {address!r}: {error}")
        self._metrics = self._listen(_METRICS_OPTION, host, port, metrics_only=True)

    def open(self, settings: WebSettings | None) -> None:
        """Listen where the config says, and no longer where another config said.

        Raises:
            InputError: the address is not available.
            RuntimeError: no thread can be started; clients wait.
        """
        if _place(settings) != _place(self._settings):
            if self._web is not None:
                self._web.stop()
            self._web = self._settings = None
            if settings is not None:
                host, port = _loopback(settings.listen)
                self._web = self._listen(settings.where, host, port)
        self._settings = settings
        for listener in (self._metrics, self._web):
            if listener is not None:
                listener.ensure_started()

    def update_metrics(self, report: Report) -> None:
        """Serve the metrics of a report from now on."""
        self.site = msgspec.structs.replace(self.site, metrics=Lazy(lambda: _rendered(report)), report=report)

    def update(self, done: Refreshed) -> None:
        """Serve the result of a cycle from now on. Lists with the same bytes keep their ETag."""
        old: Mapping[str, Body | Unserved] = {}
        before = self.site.cycle
        if before is not None:
            old = before.jobs
        reasons = {frozen.job: frozen.why for frozen in done.round.resolution.frozen}
        jobs = {job: _body(body, old.get(job), reasons.get(job, "")) for job, body in done.lists.items()}
        every = Lazy(lambda: join_lists(jobs))
        if before is not None and jobs == before.jobs:
            every = before.every
        resolution, plan = done.round.resolution, done.plan
        cycle = Cycle(
            declared=plan.declared,
            resolution=resolution,
            jobs=jobs,
            every=every,
            document=Lazy(lambda: Body(pretty(resolution_document(resolution)).encode("utf-8", "backslashreplace"))),
            statuses=partial(_statuses, plan, resolution, self._settings),
        )
        self.site = msgspec.structs.replace(self.site, cycle=cycle)

    def stop(self) -> None:
        """Close every connection, and end the threads."""
        for listener in (self._metrics, self._web):
            if listener is not None:
                listener.stop()

    def _listen(self, where: str, host: str, port: int, *, metrics_only: bool = False) -> Listener:
        # The server and its libraries are imported only if something is served.
        from clan_discovery.web.access import LoopbackAccess  # noqa: PLC0415
        from clan_discovery.web.app import App  # noqa: PLC0415
        from clan_discovery.web.server import listen  # noqa: PLC0415

        access: Access = LoopbackAccess()
        try:
            return listen(host, port, App(lambda: self.site, access, metrics_only=metrics_only))
        except OSError as error:
            why, hint = error.strerror or type(error).__name__, None
            if error.errno == errno.EADDRINUSE:
                why, hint = "another program listens there", "stop it, or choose another port"
            refuse(where, f"cannot serve on '{join_endpoint(host, port)}': {why}", hint)


def _loopback(address: str) -> tuple[str, int]:
    """Return the address and the port of `HOST:PORT`; raise ValueError if it is not one of loopback."""
    host, port = split_endpoint(address)
    if port is None:
        raise ValueError("it has no port: write 127.0.0.1:9199")
    if not is_loopback(host):
        raise ValueError("it is not loopback: let Prometheus on this machine scrape it, or use --metrics-file")
    if host.lower() == "localhost":
        return "127.0.0.1", port
    return host, port


def _body(content: bytes | None, old: Body | Unserved | None, reason: str) -> Body | Unserved:
    """Return what to serve for a job; the old value if it is the same."""
    new: Body | Unserved = Unserved(reason)
    if content is not None:
        new = Body(content)
    if old is None or old != new:
        return new
    return old


def _rendered(report: Report) -> bytes:
    from clan_discovery.emit.metrics import render  # noqa: PLC0415 - only if somebody asks

    return render(report)


def _place(settings: WebSettings | None) -> tuple[str, str] | None:
    """Return where to listen."""
    if settings is None:
        return None
    return settings.listen, settings.where


def _statuses(
    plan: Plan,
    resolution: Resolution,
    settings: WebSettings | None,
    report: Report,
    verification: Verification | None,
) -> MachineStatuses:
    """Return what the status page shows of a cycle. The history is read only if somebody asks."""
    from clan_discovery.emit.status import FleetView, StatusInput  # noqa: PLC0415 - only if somebody asks

    shown = settings or WebSettings("")
    history = read_history(State(plan.state_directory, read_only=True), plan.directory)
    since: AddressTimes = {}
    changes: Sequence[ChangeRecord] = ()
    if history is not None:
        since, changes = history.since(), history.changes
    return FleetView(
        StatusInput(
            declared=plan.declared,
            report=msgspec.structs.replace(report, resolution=resolution),
            limits=limits_of(plan, resolution),
            since=since,
            changes=changes,
            verification=verification,
            scrapers=shown.scrapers,
            dashboards=shown.links,
            config=shown.config,
        )
    )
