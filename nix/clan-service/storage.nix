# A machine in the role storage, and the servers and the Grafana that use it: which nodes there are, and what this machine
# is to them.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}@module:
let
  inherit (common) cd machine;
  inherit (lib) mkDefault mkIf;
  inherit (import ./context.nix { inherit common view; } module) firewall networks seen;
  inherit (seen) machinesOf;
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf warnIf;
  own = config.services.clan-discovery.storage;

  # By name, as in Python.
  all = lib.sort (a: b: a.machine < b.machine) seen.storage;
  mine = seen.on all;
  member = lib.head (if mine == [ ] then all else mine);
  inherit (member) settings where;
  nodes = lib.mapAttrs (_: lib.head) (lib.groupBy (one: one.machine) all);

  # The others store on their own machine, or need a component of the user's.
  writesOf =
    one:
    lib.elem one.settings.backend [
      "prometheus"
      "vmagent"
    ];
  servers = seen.on seen.servers;
  writes = lib.any writesOf servers;
  reads = writes || seen.on seen.dashboards != [ ];
  isUsed = all != [ ] && (mine != [ ] || servers != [ ] || reads);
  listed = lib.concatStringsSep ", ";

  # As Python decides it (assemble/storage.py): servers that share also scrape each other's own metrics, and more while one
  # joins or leaves.
  scrapedTwice = lib.length (machinesOf seen.servers) > 1;

  isVictoria = lib.hasPrefix "victoriametrics" own.engine;

  hostOf = name: lib.removePrefix "[" (lib.removeSuffix "]" (networks.addressOf name));
  address = settings.listenAddress;
  isLoopback = cd.service.isLoopback address;
  ports = lib.optionals (mine != [ ] && !isLoopback) (
    map (port: { inherit port settings where; }) (
      lib.unique (
        [ own.nodes.${machine}.port ]
        ++ lib.optional (own.engine != "remote-write") own.nodes.${machine}.readPort
      )
    )
  );
  isOpen = ports != [ ] && (settings.firewallInterfaces != [ ] || !config.networking.firewall.enable);
  differing = lib.filter (
    word: lib.length (lib.unique (map (one: one.settings.${word}) all)) > 1
  ) [
    "dedupInterval"
    "engine"
    "mode"
    "replicas"
  ];
  shownOf =
    word:
    lib.concatStringsSep " and " (
      lib.unique (
        map (one: if one.settings.${word} == null then "not set" else toString one.settings.${word}) all
      )
    );
  darwin = lib.filter seen.isDarwin (lib.attrNames nodes);
  writers = machinesOf (lib.filter writesOf seen.servers);
in
{
  imports = [ ../nixos ];

  config = mkIf isUsed {
    services.clan-discovery = {
      machine = mkIf (mine != [ ] || reads) (mkDefault machine);
      storage = {
        engine = mkDefault settings.engine;
        mode = mkDefault settings.mode;
        replicas = mkDefault settings.replicas;
        retentionTime = mkDefault settings.retentionTime;
        dedupInterval = mkDefault settings.dedupInterval;
        listenAddress = mkIf (address != null) (
          mkDefault (lib.removePrefix "[" (lib.removeSuffix "]" address))
        );
        nodes = lib.mapAttrs (name: one: {
          host = mkDefault (hostOf name);
          port = mkIf (one.settings.port != null) (mkDefault one.settings.port);
          readPort = mkIf (one.settings.readPort != null) (mkDefault one.settings.readPort);
        }) nodes;
        node = mkIf (mine != [ ]) (mkDefault machine);
        writes = mkDefault writes;
        reads = mkDefault reads;
        scrapedTwice = mkDefault scrapedTwice;
      };
    };

    networking.firewall.interfaces = firewall.opened ports;

    assertions =
      firewall.assertions "storage" ports
      ++ map (
        word:
        refuse "the machines of the role storage differ in `${word}` (${shownOf word}), but all nodes store together: set it once, in the settings of the role"
      ) differing
      ++ map (
        one:
        refuse "${one.where} differs from ${where}, but ${machine} is one node: give the role storage to it in one instance"
      ) (lib.filter (one: one.settings != settings) mine)
      ++
        refuseIf (darwin != [ ] && settings.engine != "remote-write")
          "${listed darwin}: a darwin machine is in the role storage, and nix-darwin runs no store: give the role to the tag `nixos` instead of `all`"
      ++
        refuseIf (writers == [ ])
          "${where}: no server writes to the storage: give the role server to a machine, with the backend prometheus or vmagent"
      ++
        refuseIf (isLoopback && (lib.remove machine writers != [ ] || lib.length (lib.attrNames nodes) > 1))
          "${where}.listenAddress: the node listens on ${toString address}, where other machines do not reach it: remove it, or set another one"
      ++
        refuseIf
          (
            mine != [ ]
            && settings.engine == "victoriametrics"
            && lib.any (one: one.settings.backend == "victoriametrics") servers
          )
          "${machine} is a server with the backend victoriametrics, and a node of the storage, which is a VictoriaMetrics, too: set `backend = \"vmagent\"` for the server";

    warnings =
      lib.concatMap (
        one:
        warnIf (!writesOf one)
          "${one.where}: the backend ${one.settings.backend} does not write to the storage: set `backend` to vmagent or prometheus"
      ) servers
      ++
        warnIf (writes && isVictoria && scrapedTwice && own.dedupInterval == "1ms")
          "${where}: several servers scrape the same targets, and each of their samples is kept: set dedupInterval to the scrape interval"
      ++
        # The servers need the port, so that it cannot be closed as that of another store.
        warnIf (isOpen && own.engine != "remote-write" && seen.agents != [ ])
          "${where}: the node asks for no password, so that any machine that reaches port ${toString own.nodes.${machine}.port} can write under the name of any agent: let only the servers reach it, by rules of the firewall for their addresses and firewallInterfaces = [ ]"
      ++
        warnIf (writes && own.mode == "shard")
          "${where}: with mode = \"shard\" each node has a part of the series, and nothing reads them as one: see docs/storage.md, or set the engine victoriametrics-cluster";
  };
}
