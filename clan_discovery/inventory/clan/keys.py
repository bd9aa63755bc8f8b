"""Find keys and settings that are probably misspelt. Pure.

Other keys may belong to clan or NixOS. So only a key that resembles a known one is reported: its value would be
silently ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from clan_discovery.syntax.suggest import CLOSE, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_COMPARED_MOST: Final = 2000
"""How many different keys are compared: each takes about 100 microseconds."""


class Keys:
    """The keys of one kind of object.

    `read` are the keys that are read here. `others` are correct keys that resemble one of these.
    """

    def __init__(self, read: Sequence[str], others: Iterable[str] = ()) -> None:
        self.read: Final = tuple(read)
        self.known: Final = frozenset([*read, *others])


# clan-core, modules/inventoryClass. `others` lists only keys that resemble one that is read.
INVENTORY_KEYS: Final = Keys(["machines", "instances", "tags", "meta"])
META_KEYS: Final = Keys(["domain", "tld"])
MACHINE_KEYS: Final = Keys(["tags", "machineClass", "description"])
INSTANCE_KEYS: Final = Keys(["module", "roles"])
MODULE_KEYS: Final = Keys(["name", "input"])
ROLE_KEYS: Final = Keys(["machines", "tags", "settings"])
MEMBER_KEYS: Final = Keys(["settings"])

EXPORTER_OPTIONS: Final = Keys(
    [
        "disabledCollectors",
        "enable",
        "enabledCollectors",
        "exporters",
        "exporterType",
        "expose",
        "extraFlags",
        "firewallInterfaces",
        "labels",
        "limits",
        "listen",
        "listenAddress",
        "metricsEndpoint",
        "metricsPath",
        "module",
        "needs",
        "params",
        "path",
        "port",
        "scheme",
        "security",
        "securityFiles",
        "target",
        "telemetryPath",
        "units",
    ],
    # nixpkgs, nixos/modules/services/monitoring/prometheus/exporters*
    [
        "constLabels",
        "dnsmasqListenAddress",
        "endpoint",
        "firewallFilter",
        "firewallRules",
        "interfaces",
        "logPath",
        "paths",
        "rpcPort",
        "rpcScheme",
        "targets",
    ],
)
SERVER_OPTIONS: Final = Keys(
    [
        "additionalScrapeConfigs",
        "alertmanagers",
        "alerts",
        "backend",
        "discoveryMethod",
        "dnsDiscovery",
        "enable",
        "enableAgentMode",
        "enableAutoDiscovery",
        "endpoints",
        "extraFlags",
        "firewallInterfaces",
        "forwardTo",
        "jobs",
        "listenAddress",
        "mode",
        "policy",
        "port",
        "remoteRead",
        "remoteWrite",
        "replicas",
        "retentionTime",
        "ruleFiles",
        "rules",
        "scrapeConfigs",
        "scrapeServers",
        "securityFiles",
        "shardState",
        "shardWeight",
        "sharding",
        "snapshot",
        "staticTargets",
        "verifyInterval",
        "web",
        "webExternalUrl",
    ],
    # nixpkgs, nixos/modules/services/monitoring/prometheus/default.nix, vmagent.nix; databases/victoriametrics.nix
    ["extraArgs", "extraOptions", "retentionPeriod"],
)

FRONT_OPTIONS: Final = Keys(
    ["auth", "domain", "entryPoints", "firewallInterfaces", "kind", "metrics", "openFirewall", "receive", "tls"]
)

AGENT_OPTIONS: Final = Keys(["caFile", "logs", "queue", "scrapeInterval", "token", "urls"])
ALERTING_OPTIONS: Final = Keys(
    [
        "deadMansSwitch",
        "externalUrl",
        "firewallInterfaces",
        "gossipPort",
        "listenAddress",
        "mail",
        "peers",
        "port",
        "receivers",
        "settings",
    ]
)
DASHBOARDS_OPTIONS: Final = Keys(
    ["adminPasswordFile", "database", "datasources", "domain", "oidc", "port", "rootUrl", "secretKeyFile"]
)
STORAGE_OPTIONS: Final = Keys(
    [
        "dedupInterval",
        "engine",
        "firewallInterfaces",
        "listenAddress",
        "mode",
        "port",
        "readPort",
        "replicas",
        "retentionTime",
    ]
)
LOGS_OPTIONS: Final = Keys(["backend", "firewallInterfaces", "listenAddress", "port", "retention"])


class Misspellings(msgspec.Struct):
    """Finds misspelt keys. A key that many objects have is compared once."""

    hints: dict[tuple[Keys, str], str | None] = {}

    def among(self, given: Iterable[str], keys: Keys) -> Iterator[tuple[str, str]]:
        """Yield each misspelt key with a hint."""
        if keys.known.issuperset(given):
            return
        for key in given:
            if key not in keys.known and (hint := self._hint(key, keys)):
                yield key, hint

    def _hint(self, key: str, keys: Keys) -> str | None:
        place = keys, key
        if place not in self.hints:
            if len(self.hints) >= _COMPARED_MOST:
                return None
            self.hints[place] = did_you_mean(key, keys.read, CLOSE)
        return self.hints[place]
