"""Read where samples are stored: `storage` of a config, completed by the role `storage` of the inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from clan_discovery.assemble.alerting import finds_machines
from clan_discovery.config.models import StorageConfig, StorageNodeConfig
from clan_discovery.inventory.clan.components import servers_of
from clan_discovery.inventory.clan.storage import StorageMember, storage_members
from clan_discovery.model import Problem, Storage, StorageNode
from clan_discovery.syntax.counting import first_names
from clan_discovery.syntax.engines import known_storage
from clan_discovery.syntax.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from clan_discovery.config.load import LoadedConfig
    from clan_discovery.model import Declared, Shard, StorageEngine, StorageMode
    from clan_discovery.syntax.engines import KnownEngine

Setting = TypeVar("Setting")


_NAMED_MOST: Final = 5
_NO_MEMBER: Final = StorageMember(machine="", instance="")


def read_storage(loaded: LoadedConfig, declared: Declared, shard: Shard | None) -> tuple[Storage | None, list[Problem]]:
    """Return where samples are stored, and the problems found; None if nothing says it, or it is wrong.

    What the config says wins over the settings of the role. `shard` are the servers, if they share targets.
    """
    members = storage_members(declared.roles)
    if loaded.config.storage is None and not members:
        return None, []
    reading = _Reading(loaded, declared, members, shard)
    return reading.storage(), reading.problems


class _Reading:
    """Reads the storage of a config and an inventory, and collects problems."""

    def __init__(
        self, loaded: LoadedConfig, declared: Declared, members: Sequence[StorageMember], shard: Shard | None
    ) -> None:
        self._loaded = loaded
        self._shard = shard
        self._declared = declared
        self._members = members
        self._config = loaded.config.storage or StorageConfig()
        self._servers = servers_of(declared.roles)
        self.problems: list[Problem] = []

    def storage(self) -> Storage | None:
        """Return the storage; None if something is wrong."""
        given = self._config
        engine: StorageEngine = _first(given.engine, self._of_role("engine", _engine), "victoriametrics")
        mode: StorageMode = _first(given.mode, self._of_role("mode", _mode), "replicate")
        nodes = tuple(self._nodes(engine))
        replicas = given.replicas or self._of_role("replicas", lambda one: one.replicas)
        if nodes:
            replicas = _first(replicas, _default_replicas(engine, mode, len(nodes)))
            self._check_replicas(engine, mode, len(nodes), replicas)
        else:
            self._complain("nodes", "there is no node, and no machine in the role `storage`", "name the nodes")
        known = known_storage().engines[engine]
        self._check_mode(engine, mode, len(nodes), replicas)
        self._check_keys(engine, known)
        self._check_cluster(engine)
        self._check_names()
        self._warn(engine)
        self._warn_of_addresses(engine, mode)
        if any(problem.severity == "error" for problem in self.problems):
            return None
        return Storage(
            engine=engine,
            nodes=nodes,
            replicas=replicas or 1,
            mode=mode,
            server=self._server(),
            is_scraped_twice=self._is_scraped_twice(),
            cluster=_first(given.cluster, ""),
            dedup=round(given.dedup_interval * 1000),
            write_url=_first(given.write_url, known.writer.url if known.writer else ""),
        )

    def _complain(self, key: str, what: str, hint: str) -> None:
        """Add an error at a key of the config, or at the role if the config does not have it."""
        given = self._loaded.config.storage
        if given is not None and key in given.model_fields_set:
            self.problems.append(self._loaded.problem(("storage", key), what, hint))
        elif self._members:
            where = f"inventory: instances.{self._members[0].instance}.roles.storage"
            self.problems.append(Problem(where=where, what=f"{key}: {what}", hint=hint))
        else:
            self.problems.append(self._loaded.problem(("storage",), f"{key}: {what}", hint))

    def _of_role(self, option: str, of: Callable[[StorageMember], Setting | None]) -> Setting | None:
        """Return a setting of the role, on which all of its members must agree."""
        found: Setting | None = None
        for member in self._members:
            own, first = of(member), of(self._members[0])
            found = first
            if own != first:
                what = f"is {_shown(own)} here and {_shown(first)} on {self._members[0].machine}"
                hint = "all nodes store together: set it once, in the settings of the role"
                self.problems.append(Problem(where=f"inventory: {member.where}.{option}", what=what, hint=hint))
                break
        return found

    def _nodes(self, engine: StorageEngine) -> Iterator[StorageNode]:
        """Yield the nodes in the order of the config, or of the names of the machines."""
        ports = known_storage().engines[engine]
        given = {member.machine.casefold(): member for member in self._members}
        names = self._config.nodes or {member.machine: StorageNodeConfig() for member in self._members}
        for name, config in names.items():
            member = given.get(name.casefold(), _NO_MEMBER)
            port = _first(config.port, member.port, ports.write)
            read_port = _first(config.read_port, member.read_port, ports.read)
            if ports.read == ports.write:
                read_port = port
            host, url = _first(config.address, ""), _first(config.url, "")
            yield StorageNode(name=name, port=port, read_port=read_port, host=host, url=url)

    def _check_replicas(self, engine: StorageEngine, mode: StorageMode, nodes: int, replicas: int) -> None:
        """Report a number of copies that the nodes cannot have."""
        if replicas > nodes:
            what = f"{replicas} copies need {replicas} nodes, and there are {nodes}"
            self._complain("replicas", what, "add nodes, or lower it")
        elif replicas < nodes and engine == "victoriametrics" and mode == "replicate":
            what = f"is {replicas}, and with `mode: replicate` each of the {nodes} nodes gets every sample"
            self._complain("replicas", what, "remove it; or set `mode: shard`, or the engine victoriametrics-cluster")
        elif replicas < nodes and engine == "remote-write":
            what = f"is {replicas}, and each of the {nodes} nodes gets every sample: replication inside is the engine's"
            self._complain("replicas", what, "remove it")

    def _check_mode(self, engine: StorageEngine, mode: StorageMode, nodes: int, replicas: int | None) -> None:
        """Report sharding by vmagent where the engine shards, and warn where nothing reads the shards as one."""
        if mode != "shard":
            return
        if engine != "victoriametrics":
            what = f"shard is for victoriametrics: {engine} distributes the samples itself"
            self._complain("mode", what, "remove it, or set another engine")
            return
        if replicas == nodes:
            what = "`mode: shard` with as many replicas as nodes writes every sample to each node"
            self._add_warning(what, "remove `mode` and `replicas`: vmauth can then read the nodes")
            return
        what = "each node has a part of the series, and no program of single-node VictoriaMetrics reads them as one"
        if replicas == 1:
            what += "; with one replica, the samples of a node are lost with it"
        hint = "let a reader merge them (docs/storage.md), or set the engine victoriametrics-cluster"
        self._add_warning(what, hint)

    def _check_keys(self, engine: StorageEngine, known: KnownEngine) -> None:
        """Report keys that only another engine has."""
        given = self._config
        if given.cluster is not None and engine != "remote-write":
            self._complain("cluster", f"is for remote-write to Mimir, not for {engine}", "remove it")
        if "dedup_interval" in given.model_fields_set and not engine.startswith("victoriametrics"):
            self._complain("dedup_interval", f"is for VictoriaMetrics, not for {engine}", "remove it")
        if given.write_url is not None and known.writer is None:
            self._complain("write_url", f"is not for {engine}: servers write to the nodes themselves", "remove it")
        for name, node in given.nodes.items():
            if node.url is not None and engine != "remote-write":
                what = f"is for remote-write, not for {engine}"
                self.problems.append(
                    self._loaded.problem(("storage", "nodes", name, "url"), what, "write `address` and `port`")
                )
            if node.read_port is not None and known.read == known.write:
                what = f"{engine} has one port, for writes and queries"
                self.problems.append(
                    self._loaded.problem(("storage", "nodes", name, "read_port"), what, "write `port`")
                )

    def _check_cluster(self, engine: StorageEngine) -> None:
        """Report HA labels for servers that have different targets: Mimir would drop the samples of all but one."""
        if self._config.cluster is None or engine != "remote-write" or not self._is_sharded():
            return
        what = (
            "Mimir keeps the samples of one server of a cluster at a time, and sharded servers have different targets: "
            "those of the others would be lost"
        )
        self._complain("cluster", what, "remove it, or remove the sharding")

    def _check_names(self) -> None:
        """Report nodes that no source declares and that have no address: they may be misspelt."""
        if finds_machines(self._loaded.config, self._declared):
            return
        static = self._loaded.config.backends.static.values()
        known = {machine.name.casefold(): machine.name for machine in self._declared.machines}
        known |= {name.casefold(): name for lists in static for name in lists.machines}
        for name, node in self._config.nodes.items():
            if node.address is None and node.url is None and name.casefold() not in known:
                what = f"no source declares a machine {name!r}"
                hint = did_you_mean(name, known.values()) or f"give its address: `{name}: {{address: ADDRESS}}`"
                self.problems.append(self._loaded.problem(("storage", "nodes", name), what, hint, severity="problem"))

    def _warn(self, engine: StorageEngine) -> None:
        """Warn where several servers scrape the same targets, and their samples cannot be told apart or merged."""
        if not self._is_scraped_twice():
            return
        if engine.startswith("victoriametrics") and "dedup_interval" not in self._config.model_fields_set:
            what = "several servers scrape the same targets, and each of their samples is kept"
            self._add_warning(what, "set storage.dedup_interval to the scrape interval")
        if (engine == "thanos" or self._config.cluster is not None) and not self._server():
            what = "several servers scrape the same targets, and this config does not say which of them it is for"
            self._add_warning(what, "set `server`: the HA label is its name")

    def _warn_of_addresses(self, engine: StorageEngine, mode: StorageMode) -> None:
        """Warn where programs hash addresses that each machine finds for itself: their lists may differ."""
        names = self._config.nodes or {member.machine: StorageNodeConfig() for member in self._members}
        found = [name for name, node in names.items() if node.address is None]
        if not found or (engine != "thanos" and mode != "shard"):
            return
        hashed = "the hashring of Thanos" if engine == "thanos" else "vmagent's choice of nodes"
        what = (
            f"{hashed} depends on the addresses of the nodes, and no address of {first_names(found, _NAMED_MOST)} is "
            "set: machines that see them at different addresses send the same series to different nodes"
        )
        self._add_warning(what, "set storage.nodes.NAME.address, the same on all machines")

    def _add_warning(self, what: str, hint: str) -> None:
        self.problems.append(Problem(where="storage", what=what, hint=hint, severity="warning"))

    def _server(self) -> str:
        """Return the name of this server; empty if it is not known which one it is."""
        if self._shard is not None:
            return self._shard.member
        if self._loaded.config.server is not None:
            return self._loaded.config.server
        return next(iter(self._servers)) if len(self._servers) == 1 else ""

    def _is_scraped_twice(self) -> bool:
        """Tell whether several servers scrape a target: if they share, at least each other's own metrics."""
        if self._shard is not None:
            return len(self._shard.members) > 1
        return len(self._servers) > 1

    def _is_sharded(self) -> bool:
        """Tell whether the servers have different targets."""
        if self._shard is not None:
            return len(self._shard.members) > self._shard.replicas
        return any(settings.get("sharding") not in (None, "none") for settings in self._servers.values())


def _first(*values: Setting | None) -> Setting:
    """Return the first value that is not None; the last one never is."""
    return next(value for value in values if value is not None)


def _engine(member: StorageMember) -> StorageEngine | None:
    return member.engine


def _mode(member: StorageMember) -> StorageMode | None:
    return member.mode


def _default_replicas(engine: StorageEngine, mode: StorageMode, nodes: int) -> int:
    known = known_storage()
    copies = known.shard_replicas if mode == "shard" else known.engines[engine].replicas
    return nodes if copies is None else min(copies, nodes)


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)
