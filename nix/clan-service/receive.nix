# `receive` of a machine in the role front: the stores that it writes to, and the tokens of all agents.
{
  lib,
  cd,
  config,
  networks,
  options,
  pkgs,
  seen,
  ...
}:
# member : the member of the role front on this machine
member:
let
  inherit (lib) mkDefault;
  inherit (member) where;
  inherit (member.settings) receive;
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf;
  inherit (import ../nixos/scraper.nix { inherit lib cd; }) own;
  tokens = import ./tokens.nix { inherit pkgs; };
  hasVars = lib.hasAttrByPath [ "clan" "core" "vars" ] options;
  enable = lib.any (one: one.where == where) seen.receivers;
  listed = lib.concatStringsSep " and ";

  # storeOf : [ member ] -> (member -> url) -> (member -> port) -> url or null: this machine's store, or the only one.
  storeOf =
    members: urlOf: portOf:
    let
      here = seen.on members;
      only = lib.head members;
    in
    if here != [ ] then
      urlOf (lib.head here)
    else if lib.length (seen.machinesOf members) == 1 then
      "http://${networks.addressOf only.machine}:${toString (portOf only)}"
    else
      null;

  # unreached : [ member ] -> [ message ]: the only store is on another machine, which alone reaches it.
  unreached =
    members:
    let
      only = lib.head members;
      address = only.settings.listenAddress or null;
    in
    refuseIf
      (seen.on members == [ ] && lib.length (seen.machinesOf members) == 1 && cd.service.isLoopback address)
      "${where}: the store of ${only.machine} listens on ${address}, where ${member.machine} does not reach it: give the role front to ${only.machine}, or set another listenAddress in ${only.where}, or set receive.enable = false if ${member.machine} shall not receive";

  # The stores of metrics that can force a name.
  isStore = one: one.settings.backend == "victoriametrics";
  servers = lib.filter isStore seen.servers;
  metrics =
    if receive.metrics.url != null then
      receive.metrics.url
    else
      storeOf servers (one: (own one.settings config).url) (one: cd.service.serverPort one.settings);
  lacksMetrics =
    let
      others = lib.filter (one: !isStore one) (seen.on seen.servers);
      other = (lib.head others).settings.backend;
    in
    if servers != [ ] then
      "${listed (seen.machinesOf servers)} have a VictoriaMetrics each: set receive.metrics.url to one of them"
    else if others == [ ] then
      "the clan has no server with a VictoriaMetrics, which gets the metrics of the agents: set `backend = \"victoriametrics\"` in the settings of the role server, or receive.metrics.url"
    else if other == "vmagent" then
      "the server of this machine is a vmagent, which stores nothing: set receive.metrics.url to the VictoriaMetrics that it writes to, or to this vmagent"
    else
      "the server of this machine is ${other}, which takes any name that a client sends by remote write, so that the name of an agent cannot be forced: set `backend = \"victoriametrics\"` in the settings of the role server, or receive.metrics.url to a VictoriaMetrics";

  # Its operator alone knows the password.
  isClosed =
    receive.metrics.url == null && lib.any (one: (own one.settings config).closed) (seen.on servers);

  logs =
    if receive.logs.url != null then
      receive.logs.url
    else
      storeOf seen.stores (one: one.url) (one: one.port);
  backends = lib.unique (map (one: one.settings.backend) seen.stores);
  kind =
    if receive.logs.kind == null && receive.logs.url == null && lib.length backends == 1 then
      lib.head backends
    else
      receive.logs.kind;

  # Another instance of the service may have the agent as well, with the same settings.
  agents = lib.attrValues (lib.mapAttrs (_: lib.head) (lib.groupBy (one: one.machine) seen.agents));
  isNamed = agent: receive.tokens ? ${agent.machine};
  isGenerated = agent: hasVars && !isNamed agent && agent.settings.token.file == null;
  generated = lib.filter isGenerated agents;
  # The newest first.
  generationsOf =
    agent:
    let
      inherit (agent.settings.token) generation;
    in
    [ generation ] ++ lib.optional (generation > 1) (generation - 1);
  # Another machine of the clan has the same URL.
  clashing = lib.filter (one: one.machine != member.machine && one.url == url) seen.receivers;
  url = (lib.findFirst (one: one.where == where) null seen.receivers).url;

  # placesOf : member -> [ string ]: the stores that a receiver writes to, where no URL says it: as `storeOf` finds them.
  placesOf =
    { machine, settings, ... }:
    let
      of =
        kind: members:
        let
          there = seen.machinesOf members;
        in
        lib.optional (
          settings.receive.${kind}.url == null && (lib.elem machine there || lib.length there == 1)
        ) ("${kind} of ${if lib.elem machine there then machine else lib.head there}");
    in
    of "metrics" servers ++ of "logs" seen.stores;
  # Other machines that write to a store that this one writes to.
  doubling = lib.filter (
    one: one.machine != member.machine && lib.intersectLists (placesOf one) (placesOf member) != [ ]
  ) seen.receivers;

  flags = import ../nixos/flags.nix { inherit lib; };
  takesWrites =
    config.services.prometheus.enable
    && flags.hasFlag config.services.prometheus.extraFlags [ "web.enable-remote-write-receiver" ];
in
{
  receive = {
    enable = mkDefault enable;
    kind = mkDefault receive.kind;
    domain = mkDefault receive.domain;
    port = mkDefault receive.port;
    metrics.url = mkDefault metrics;
    logs = {
      url = mkDefault logs;
      kind = mkDefault kind;
    };
    limits = lib.genAttrs [ "body" "burst" "connections" "requests" ] (
      name: mkDefault receive.limits.${name}
    );
    tokens =
      receive.tokens
      // lib.listToAttrs (
        map (agent: {
          name = agent.machine;
          value = map (tokens.fileOf config agent.machine) (generationsOf agent);
        }) generated
      );
  };

  # Definitions of clan.core.vars.generators.
  generators = lib.mkMerge (
    lib.concatMap (
      agent:
      map (
        generation:
        tokens.generator {
          inherit (agent) machine;
          inherit generation;
          restartUnits = [ "clan-discovery-receive.service" ];
        }
      ) (generationsOf agent)
    ) (lib.optionals enable generated)
  );

  assertions = lib.optionals enable (
    refuseIf (metrics == null) "${where}: ${lacksMetrics}"
    ++ lib.optionals (receive.metrics.url == null) (unreached servers)
    ++ lib.optionals (receive.logs.url == null && lib.any seen.sendsLogs seen.agents) (
      unreached seen.stores
    )
    ++ refuseIf isClosed "${where}: the VictoriaMetrics of this machine asks for a password or for TLS, which the front does not have, so that it would store nothing of the agents: let it listen on loopback without, or set receive.metrics.url"
    ++
      refuseIf (logs == null && lib.any seen.sendsLogs seen.agents)
        "${where}: ${
          if seen.stores == [ ] then
            "agents send logs, and no machine has the role logs: give it to ${member.machine}, or set receive.logs.url"
          else
            "${listed (seen.machinesOf seen.stores)} store logs: set receive.logs.url to one of them"
        }"
    ++
      refuseIf (clashing != [ ])
        "${where}: ${listed (seen.machinesOf clashing)} receives at ${url}, too, and each agent sends to every machine that receives: set another receive.domain"
    ++
      refuseIf (doubling != [ ])
        "${where}: ${listed (seen.machinesOf doubling)} receives, too, and writes to the same store, so that what agents send would be stored twice: set receive.enable = false, or give each machine that receives a store of its own"
    ++ map (
      agent:
      refuse "${where}: ${agent.where}.token.file is set, so that clan vars do not make the token of ${agent.machine}: set receive.tokens.${agent.machine} to the files of its tokens on ${member.machine}"
    ) (lib.filter (agent: !isNamed agent && !isGenerated agent) agents)
    ++ refuseIf takesWrites "${where}: services.prometheus.extraFlags has --web.enable-remote-write-receiver, so that each client that reaches Prometheus can write under the name of any agent: remove it"
  );
}
