"""Make a token for an agent, write what the receiver reads, or list which agents have tokens.

An agent sends metrics and logs with a bearer token, and what it sends is stored
under the name of the machine that the token belongs to (docs/agents.md).

  new MACHINE   print a new token, and where it goes. It needs no config, and
                nothing is stored: keep what it prints.
  write         write front.receive.file from the token files of the directory
                front.receive.tokens, if it changed. Reload the receiver then.
  list          list the agents, how many valid tokens each has, and what is
                wrong with token files. It prints no token.

The name of a token file is MACHINE, or MACHINE, a dot and any word: all tokens
of a machine are valid. A file that is added or removed has no effect before
`write` and the reload. On NixOS: systemctl restart clan-discovery-receive.

for example:
  a token for laptop; put it on the agent, and where it is received:
    clan-discovery token new laptop > laptop.token
    cp laptop.token TOKENS/laptop
    clan-discovery token write && nginx -t && nginx -s reload
  a new one: add it as TOKENS/laptop.2, write and reload; change it on the
    agent; then remove TOKENS/laptop, write and reload
  a stolen one: remove its file, write and reload
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from clan_discovery.cli.command import Args, Command, Parser, Streams, add_config, config_of
from clan_discovery.cli.progress import flake_of, progress
from clan_discovery.errors import Exit, InputError, refuse
from clan_discovery.syntax.counting import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clan_discovery.config.load import LoadedConfig

_BYTES: Final = 32
_WHERE: Final = """\
the token of {machine} is on stdout; it is not stored anywhere, and not printed again
the agent reads it from a file, and so does the machine that receives:
clan vars: nothing to do, the clan service makes tokens; for one of your own:
  clan vars set {machine} prometheus-agent-token-{machine}-1/token
sops-nix: `sops secrets.yaml`, then on both machines:
  sops.secrets."agent-token-{machine}" = {{ }};
agenix: `agenix -e agent-token-{machine}.age`, then on both machines:
  age.secrets."agent-token-{machine}".file = ./agent-token-{machine}.age;
  and name the path of the secret in both modules, on {machine} as
  services.clan-discovery.agent.tokenFile, on the other one in
  services.clan-discovery.front.receive.tokens.{machine}
a plain file: mode 0600, as {machine} in the directory front.receive.tokens
then, where it is received: clan-discovery token write, and reload the receiver"""


def _add(parser: Parser) -> None:
    parser.add_argument("action", metavar="ACTION", choices=("new", "write", "list"), help="new, write or list")
    parser.add_argument("machine", metavar="MACHINE", nargs="?", help="with `new`: the machine that sends")
    add_config(parser)


def _run(args: Args, streams: Streams) -> Exit:
    machine: str | None = args.machine
    if args.action == "new":
        return _new(machine, streams)
    if machine is not None:
        refuse("", f"unexpected argument {machine!r}: `token {args.action}` is for all machines")
    if args.action == "write":
        return _write(config_of(args), streams)
    return _list(config_of(args), streams)


def _new(machine: str | None, streams: Streams) -> Exit:
    """Print a token alone on stdout, so that it can go to a file."""
    from clan_discovery.emit.receive.stores import is_writable  # noqa: PLC0415 - only here

    if machine is None:
        refuse("", "name the machine that sends", "clan-discovery token new MACHINE")
    if not is_writable(machine):
        refuse("", f"{machine!r} cannot be the name of an agent: letters, digits, '-', '_' and '.' only")
    streams.out.write(f"{secrets.token_urlsafe(_BYTES)}\n")
    streams.out.flush()
    for line in _WHERE.format(machine=machine).split("\n"):
        streams.log(line)
    return Exit.OK


def _agents(loaded: LoadedConfig, streams: Streams) -> Sequence[str]:
    """Return the agents that the sources declare."""
    from clan_discovery.assemble.sources import read_declared  # noqa: PLC0415 - the parsers, only where they are used

    with progress(streams.err) as waits, waits.evaluating(flake_of(loaded)):
        return read_declared(loaded).agents


def _write(loaded: LoadedConfig, streams: Streams) -> Exit:
    """Write the receiver's config; a problem of the config stops it, and one of a token file is a warning."""
    from clan_discovery.assemble.fronts import front_settings  # noqa: PLC0415 - `token new` needs none of these
    from clan_discovery.assemble.receive import loaded_receiver, read_tokens  # noqa: PLC0415
    from clan_discovery.emit.receive import render_receiver  # noqa: PLC0415
    from clan_discovery.publish.secret import write_secret  # noqa: PLC0415

    receive = loaded_receiver(loaded)
    front, problems = front_settings(loaded, None)
    if problems := [problem for problem in problems if problem.severity == "error"]:
        raise InputError(problems)
    if front is None or front.receive is None:
        refuse(str(loaded.file), "the config has no `front.receive`")
    found = read_tokens(receive.tokens, _agents(loaded, streams))
    streams.warn(found.problems)
    changed = write_secret(receive.file, render_receiver(found.tokens, front.receive, front).encode(), receive.group)
    outcome = "written: reload the receiver" if changed else "unchanged"
    machines = plural(len({token.machine for token in found.tokens}), "machine")
    streams.print(f"{plural(len(found.tokens), 'token')} of {machines}; {receive.file} {outcome}")
    return Exit.OK


def _list(loaded: LoadedConfig, streams: Streams) -> Exit:
    from clan_discovery.assemble.receive import loaded_receiver, read_tokens  # noqa: PLC0415 - as above

    receive = loaded_receiver(loaded)
    agents = _agents(loaded, streams)
    found = read_tokens(receive.tokens, agents)
    streams.warn(found.problems)
    width = max(map(len, agents), default=0)
    for agent in agents:
        streams.print(f"{agent.ljust(width)}  {plural(found.valid_of(agent), 'token')}")
    return Exit.OK


COMMAND: Final = Command(__doc__, _add, _run)
