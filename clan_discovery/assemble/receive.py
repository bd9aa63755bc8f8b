"""Read `front.receive` from a config, and the tokens of agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn
from urllib.parse import urlsplit

import msgspec

from clan_discovery.emit.receive.stores import is_writable
from clan_discovery.errors import refuse
from clan_discovery.model import AgentToken, Problem, ReceiveLimits, ReceiveSettings
from clan_discovery.reading import UnreadableError, UnusableFileError, read_input
from clan_discovery.syntax.endpoint import is_address, is_loopback
from clan_discovery.syntax.hosts import virtual_host
from clan_discovery.syntax.suggest import did_you_mean
from clan_discovery.syntax.token import MOST_BYTES, token_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.config.models import FrontConfig, ReceiveConfig
    from clan_discovery.model import FrontKind, FrontSettings, ReceiverKind
    from clan_discovery.syntax.tree import KeyPath

_KEY: Final[KeyPath] = ("front", "receive")
_FILES_MOST: Final = 20_000


def receive_settings(
    loaded: LoadedConfig, config: FrontConfig, receive: ReceiveConfig, front: FrontSettings
) -> tuple[ReceiveSettings, list[Problem]]:
    """Return how the front receives what agents send, and what is wrong with it."""
    kind = _kind(receive, config.kind)
    problems: list[Problem] = []
    domain = ""
    if kind == "nginx":
        problems += _problems(loaded, config, receive, front)
        try:
            domain = _domain(receive, config)
        except ValueError as error:
            problems.append(loaded.problem((*_KEY, "domain"), str(error)))
    limits = receive.limits
    settings = ReceiveSettings(
        kind=kind,
        domain=domain,
        metrics=receive.metrics or "",
        limits=ReceiveLimits(
            requests=limits.requests, burst=limits.burst, body=limits.body, connections=limits.connections
        ),
    )
    if receive.logs is not None:
        settings = msgspec.structs.replace(settings, logs=receive.logs.url, logs_kind=receive.logs.kind)
    return settings, problems


def _kind(receive: ReceiveConfig, front: FrontKind) -> ReceiverKind:
    if receive.kind is not None:
        return receive.kind
    return "nginx" if front == "nginx" else "vmauth"


def _domain(receive: ReceiveConfig, front: FrontConfig) -> str:
    """Return the domain that agents send to.

    Raises:
        ValueError: it has no dot, and the front has no domain; or both together are too long.
    """
    if "." in receive.domain:
        return receive.domain
    if front.domain is None:
        raise ValueError(f"{receive.domain!r} has no dot: set front.domain, or write the whole domain")
    return virtual_host(f"{receive.domain}.{front.domain}")


def _problems(
    loaded: LoadedConfig, config: FrontConfig, receive: ReceiveConfig, front: FrontSettings
) -> Iterator[Problem]:
    """Yield a problem for each thing that nginx cannot do, or that would not be safe."""
    if config.kind != "nginx":
        hint = "remove it: vmauth receives beside the proxy"
        yield loaded.problem((*_KEY, "kind"), f"nginx receives only where it is the proxy, not {config.kind}", hint)
        return
    if front.tls == "off" and not (front.listen and all(map(is_loopback, front.listen))):
        what = "agents would send their tokens in clear text: front.tls is off"
        hint = "write `tls: {certificate: FILE, key: FILE}`; or, for tests, `listen: [127.0.0.1]`"
        yield loaded.problem(_KEY, what, hint)
    if front.resolvers:
        return
    for key, url in _stores(receive):
        host = urlsplit(url).hostname or ""
        if not is_address(host) and host != "localhost":
            what = f"{url} is at a name, and nginx does not start while it cannot be looked up"
            yield loaded.problem((*_KEY, *key), what, "set front.resolver to the address of a DNS server")


def _stores(receive: ReceiveConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yield the key and the URL of each store."""
    if receive.metrics is not None:
        yield ("metrics",), receive.metrics
    if receive.logs is not None:
        yield ("logs", "url"), receive.logs.url


class FoundTokens(NamedTuple):
    """The valid tokens of agents, sorted, and what is wrong with the others."""

    tokens: tuple[AgentToken, ...]
    problems: tuple[Problem, ...]

    def valid_of(self, machine: str) -> int:
        """Return how many tokens of this machine are valid."""
        return sum(token.machine == machine for token in self.tokens)


def read_tokens(directory: Path, agents: Sequence[str]) -> FoundTokens:
    """Read the token files of agents: `MACHINE`, or `MACHINE.` and a word.

    A file that holds no token, or is for no agent, is a warning, and so is an agent without a token.

    Raises:
        InputError: the directory cannot be read, or two machines have one token.
    """
    found: list[AgentToken] = []
    problems: list[Problem] = []
    places: dict[str, tuple[str, Path]] = {}
    agents = [agent for agent in agents if _is_usable(agent, problems)]
    names = frozenset(agents)
    for file in _files(directory):
        machine = _machine_of(file.name, names)
        if machine is None:
            problems.append(_for_no_agent(file, agents))
            continue
        try:
            token = token_in(_body(file))
        except ValueError as error:
            hint = f"write a new one: clan-discovery token new {machine}"
            what = f"the token file of {machine} {error}; it gives no access"
            problems.append(Problem(where=str(file), what=what, hint=hint, severity="warning"))
            continue
        other, place = places.setdefault(token.casefold(), (machine, file))  # nginx ignores the case
        if other != machine:
            _refuse_shared(other, place, machine, file)
        found.append(AgentToken(machine, token))
    problems += _without_token(directory, agents, {token.machine for token in found})
    return FoundTokens(tuple(sorted(set(found))), tuple(problems))


def _is_usable(agent: str, problems: list[Problem]) -> bool:
    """Tell whether the name of an agent can be forced; if not, add a problem."""
    if is_writable(agent):
        return True
    what = f"agent {agent[:80]!r} cannot send: no proxy could force a name of more than letters, digits and '_.-'"
    problems.append(Problem(where="", what=what, hint="rename the machine", severity="warning"))
    return False


def _files(directory: Path) -> list[Path]:
    """Return the files of a directory, sorted; hidden ones are left out."""
    try:
        names = sorted(file.name for file in directory.iterdir() if not file.name.startswith("."))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        refuse(str(directory), f"cannot read the directory of tokens: {reason}", "correct front.receive.tokens")
    if len(names) > _FILES_MOST:
        refuse(str(directory), f"has {len(names):,} files: {_FILES_MOST:,} at most are read as tokens")
    return [directory / name for name in names]


def _machine_of(name: str, agents: AbstractSet[str]) -> str | None:
    """Return the agent that a file is for: names of machines have dots, too, so the longest one that fits."""
    while name not in agents:
        name, dot, _ = name.rpartition(".")
        if not dot:
            return None
    return name


def _body(file: Path) -> bytes:
    """Read a token file.

    Raises:
        ValueError: it cannot be read; the message completes a sentence with the file's name.
    """
    try:
        return read_input(file, MOST_BYTES)
    except UnreadableError as error:
        why = f"cannot be read: {error.why}"
        if isinstance(error.cause, UnusableFileError):  # a sentence of its own: it is a pipe, or too large
            why = f"is larger than {MOST_BYTES} bytes" if error.cause.is_too_large else error.why
        raise ValueError(why) from None


def _for_no_agent(file: Path, agents: Iterable[str]) -> Problem:
    what = "is for no agent that a source declares, and gives no access"
    hint = did_you_mean(file.name, agents) or "give the machine the role `agent`, or remove the file"
    return Problem(where=str(file), what=what, hint=hint, severity="warning")


def _refuse_shared(one: str, file: Path, other: str, second: Path) -> NoReturn:
    what = f"{one} and {other} have the same token ({file}): one of them could write as the other"
    refuse(str(second), what, f"write a new one: clan-discovery token new {other}; nothing was written")


def _without_token(directory: Path, agents: Iterable[str], known: AbstractSet[str]) -> Iterator[Problem]:
    """Yield a warning for each agent whose requests are refused."""
    for agent in agents:
        if agent not in known:
            what = f"agent {agent} has no token: what it sends is refused"
            hint = f"write {directory / agent}: clan-discovery token new {agent}"
            yield Problem(where=str(directory), what=what, hint=hint, severity="warning")


def loaded_receiver(loaded: LoadedConfig) -> ReceiveConfig:
    """Return `front.receive`, or raise InputError if the config has none."""
    front = loaded.config.front
    if front is None or front.receive is None:
        hint = "write where tokens are, and where the receiver's config goes (docs/agents.md)"
        refuse(str(loaded.file), "the config has no `front.receive`", hint)
    return front.receive
