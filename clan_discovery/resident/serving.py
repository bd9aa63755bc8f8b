"""Listen on the addresses of the config and the command line, and hold what is served there."""

from __future__ import annotations

import errno
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from clan_discovery.emit.json import pretty, resolution_document
from clan_discovery.errors import BackendError, InputError, refuse
from clan_discovery.memory import read_history
from clan_discovery.model import Problem
from clan_discovery.publish.state import State
from clan_discovery.round import limits_of
from clan_discovery.syntax.endpoint import is_loopback, join_endpoint, split_endpoint
from clan_discovery.web.site import Body, Cycle, Lazy, Site, Unserved, join_lists

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from clan_discovery.emit.states import AddressTimes
    from clan_discovery.model import ChangeRecord, Report, Resolution
    from clan_discovery.round import Plan, Refreshed
    from clan_discovery.web.access import Access, TailnetNode
    from clan_discovery.web.server import Listener
    from clan_discovery.web.site import MachineStatuses

_METRICS_OPTION: Final = "--metrics-listen"


class WebSettings(NamedTuple):
    """The `web` of a config: where to listen, and who may ask if that is an address of a tailnet.

    `sockets` are those of the tailscaleds that may have the address. `where` is the position in the config, for
    messages. `links` are the URLs of dashboards by title, `scrapers` those of scrapers by name, and `config` is the
    path of the config: for the status page.
    """

    listen: str
    allow: tuple[str, ...] = ()
    sockets: tuple[Path, ...] = ()
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
        self._statuses: Callable[[Report], MachineStatuses] | None = None

    def open_metrics(self, address: str) -> None:
        """Listen for scrapes of the metrics.

        Raises:
            InputError: the address is not one of loopback, or is not available.
        """
        try:
            host, port = _endpoint(address)
        except ValueError as error:
            refuse(_METRICS_OPTION, f"cannot serve on {address!r}: {error}")
        if not is_loopback(host):
            what = "it is not loopback: let Prometheus on this machine scrape it, or use --metrics-file"
            refuse(_METRICS_OPTION, f"cannot serve on {address!r}: {what}")
        self._metrics = self._listen(_METRICS_OPTION, host, port, metrics_only=True)

    def open(self, settings: WebSettings | None) -> None:
        """Listen where the config says, and no longer where another config said.

        Raises:
            InputError: another program listens there, or it is no address of this machine.
            BackendError: tailscaled does not answer, so an address of the tailnet is not available yet.
            RuntimeError: no thread can be started; clients wait.
        """
        if _place(settings) != _place(self._settings):
            if self._web is not None:
                self._web.stop()
            self._web = self._settings = None
            if settings is not None:
                self._web = self._listen_for(settings)
        self._settings = settings
        for listener in (self._metrics, self._web):
            if listener is not None:
                listener.ensure_started()

    def update_metrics(self, report: Report) -> None:
        """Serve the metrics and the status of a report from now on."""
        statuses = None
        if self._statuses is not None:
            statuses = Lazy(partial(self._statuses, report))
        self.site = msgspec.structs.replace(self.site, metrics=Lazy(partial(_rendered, report)), statuses=statuses)

    def update(self, done: Refreshed) -> None:
        """Serve the result of a cycle from now on. Lists with the same bytes keep their ETag.

        Without `web` there is no request for it, so it is not kept.
        """
        if self._settings is None:
            self._statuses = None
            self.site = msgspec.structs.replace(self.site, cycle=None, statuses=None)
            return
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
        )
        self._statuses = partial(_statuses, plan, resolution, self._settings)
        self.site = msgspec.structs.replace(self.site, cycle=cycle)

    def stop(self) -> None:
        """Close every connection, and end the threads."""
        for listener in (self._metrics, self._web):
            if listener is not None:
                listener.stop()

    def _listen_for(self, settings: WebSettings) -> Listener:
        from clan_discovery.web.access import TailnetAccess  # noqa: PLC0415

        host, port = _endpoint(settings.listen)
        if is_loopback(host):
            return self._listen(settings.where, host, port)
        access = TailnetAccess(_node_with(host, settings), host, settings.allow)
        return self._listen(settings.where, host, port, access)

    def _listen(
        self, where: str, host: str, port: int, access: Access | None = None, *, metrics_only: bool = False
    ) -> Listener:
        # The server and its libraries are imported only if something is served.
        from clan_discovery.web.access import LoopbackAccess  # noqa: PLC0415
        from clan_discovery.web.app import App  # noqa: PLC0415
        from clan_discovery.web.server import listen  # noqa: PLC0415

        app = App(lambda: self.site, access or LoopbackAccess(), metrics_only=metrics_only)
        try:
            return listen(host, port, app)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise BackendError(
                    f"the address {host} is not there yet", hint="it is the one of tailscale0"
                ) from error
            why, hint = error.strerror or type(error).__name__, None
            if error.errno == errno.EADDRINUSE:
                why, hint = "another program listens there", "stop it, or choose another port"
            refuse(where, f"cannot serve on '{join_endpoint(host, port)}': {why}", hint)


def _node_with(host: str, settings: WebSettings) -> TailnetNode:
    """Ask the tailscaleds which of them has an address; raise as `Serving.open`."""
    from clan_discovery.web.access import own_node  # noqa: PLC0415

    silent: list[BackendError] = []
    others: list[str] = []
    for path in settings.sockets:
        try:
            node = own_node(path)
        except BackendError as error:
            silent.append(error)
            continue
        if host in node.addresses:
            return node
        others += node.addresses
    if silent:
        raise silent[0]
    what = f"web.listen: {host} is not an address of this machine in its tailnet"
    hint = f"write one of {', '.join(others) or 'loopback'}"
    raise InputError([Problem(where=settings.where, what=what, hint=hint)])


def _endpoint(address: str) -> tuple[str, int]:
    """Return the address and the port of `HOST:PORT`; raise ValueError if it has none."""
    host, port = split_endpoint(address)
    if port is None:
        raise ValueError("it has no port: write 127.0.0.1:9199")
    if host.lower() == "localhost":
        return "127.0.0.1", port
    return str(ip_address(host)), port


def _body(content: bytes | None, old: Body | Unserved | None, reason: str) -> Body | Unserved:
    """Return what to serve for a job; the old value if it is the same.

    `content` is None for a job that keeps its present file and has none: the list that was served last is kept.
    """
    if content is None:
        if isinstance(old, Body):
            return old
        return Unserved(reason)
    new = Body(content)
    if old is not None and old == new:
        return old
    return new


def _rendered(report: Report) -> bytes:
    from clan_discovery.emit.metrics import render  # noqa: PLC0415 - only when asked

    return render(report)


def _place(settings: WebSettings | None) -> tuple[object, ...] | None:
    """Return where to listen, and for whom."""
    if settings is None:
        return None
    return settings.listen, settings.allow, settings.sockets


def _statuses(
    plan: Plan,
    resolution: Resolution,
    settings: WebSettings,
    report: Report,
) -> MachineStatuses:
    """Return what the status page shows of a cycle. The history is read only when asked."""
    from clan_discovery.emit.status import FleetView, StatusInput  # noqa: PLC0415 - only when asked

    history = read_history(State(plan.state_directory, read_only=True), plan.directory)
    since: AddressTimes = {}
    changes: Sequence[ChangeRecord] = ()
    if history is not None:
        since, changes = history.since(), history.changes
    view = FleetView(
        StatusInput(
            declared=plan.declared,
            report=msgspec.structs.replace(report, resolution=resolution),
            limits=partial(limits_of, plan, resolution),
            since=since,
            changes=changes,
            verification=report.verification,
            scrapers=settings.scrapers,
            dashboards=settings.links,
            config=settings.config,
        )
    )
    _ = view.fleet  # made here, because every page needs it
    return view
