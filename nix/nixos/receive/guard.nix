# Who reaches a store of this machine past the receiver, and could write under the name of any agent.
#
# `exposed` is what the machine exposes: [ { name, port, front } ].
{
  lib,
  config,
  exposed,
}:
let
  inherit (config) services;
  cd = import ../../lib;
  inherit (config.networking) firewall;
  flags = import ../flags.nix { inherit lib; };

  loki = (services.loki.configuration or { }).server or { };
  # The address on which each listens, as `host:port`; no host is every address.
  listens = {
    victoriametrics = services.victoriametrics.listenAddress;
    victorialogs = services.victorialogs.listenAddress;
    vmagent =
      let
        said = flags.valueOf services.vmagent.extraArgs "httpListenAddr";
      in
      if said == null then ":8429" else said;
    loki = "${loki.http_listen_address or ""}:${toString (loki.http_listen_port or 3100)}";
  };

  # placesOf : int -> [ string ]: from where a port can be reached.
  placesOf =
    port:
    let
      opens =
        open:
        lib.elem port (open.allowedTCPPorts or [ ])
        || lib.any (range: range.from <= port && port <= range.to) (open.allowedTCPPortRanges or [ ]);
      named = lib.attrNames (lib.filterAttrs (_: opens) firewall.interfaces);
    in
    if !firewall.enable then
      [ "everywhere, because networking.firewall is disabled" ]
    else if opens firewall then
      [ "everywhere" ]
    else
      lib.unique (named ++ lib.remove "lo" (firewall.trustedInterfaces or [ ]));

  # portOf : string -> int or null: the port on which a store of this machine listens; null: it does not run here.
  portOf =
    name:
    let
      said = builtins.match ".*:([0-9]+)" listens.${name};
    in
    if !(services.${name}.enable or false) || said == null then null else lib.toInt (lib.head said);

  flagsOf =
    name:
    {
      victoriametrics = services.victoriametrics.extraOptions;
      vmagent = services.vmagent.extraArgs;
    }
    .${name} or [ ];
  # Of two labels with one name the last one wins, so the one that the receiver adds must stay the last.
  sorts = name: flags.hasFlag (flagsOf name) [ "sortLabels" ];
  # otherListeners : string -> [ { flag, said, places } ]: those that take samples with any labels from other machines.
  otherListeners =
    name:
    lib.filter
      (
        one:
        one.port != null
        && one.places != [ ]
        && !cd.service.isLoopback (lib.removeSuffix ":${one.port}" one.said)
      )
      (
        map
          (
            flag:
            let
              said = flags.valueOf (flagsOf name) flag;
              port = if said == null then null else builtins.match ".*:([0-9]+)" said;
            in
            {
              inherit flag said;
              port = if port == null then null else lib.head port;
              places = lib.optionals (port != null) (placesOf (lib.toInt (lib.head port)));
            }
          )
          [
            "graphiteListenAddr"
            "influxListenAddr"
            "opentsdbHTTPListenAddr"
            "opentsdbListenAddr"
          ]
      );
  # Before 1.108, VictoriaMetrics removes the last labels of a series that has too many.
  cuts =
    name:
    let
      inherit (services.victoriametrics) package extraOptions;
    in
    name == "victoriametrics"
    && lib.versionOlder (package.version or "2") "1.108"
    && !flags.hasFlag extraOptions [ "maxLabelsPerTimeseries" ];

  # Paths that serve queries alone.
  readOnly = [
    "/select"
    "/vmui"
  ];
  readers = {
    victoriametrics = ", or front.path = \"/vmui\"";
    victorialogs = ", or front.path = \"/select\"";
  };
  writesTo =
    port: one:
    one.front or null != null
    && one.front.auth or "none" == "none"
    && lib.elem port [
      one.port
      (one.front.port or null)
    ]
    && !lib.any (prefix: lib.hasPrefix prefix (one.front.path or "/")) readOnly;
in
{
  inherit portOf;
  names = lib.attrNames listens;

  # complaintsOf : string -> string -> [ string ]: what is wrong with a store. `hint` says how to close it.
  complaintsOf =
    name: hint:
    let
      port = portOf name;
      address = lib.removeSuffix ":${toString port}" listens.${name};
      places = placesOf port;
    in
    lib.optionals (port != null) (
      lib.optional (sorts name) "services.${name} has -sortLabels, with which an agent can write under the name of another one: remove it"
      ++ lib.optional (cuts name) "services.${name} is ${services.victoriametrics.package.version}, which cuts series with many labels, so that an agent can write under the name of another one: update it to 1.108 or newer, or set services.victoriametrics.extraOptions = [ \"-maxLabelsPerTimeseries=1000000\" ]"
      ++
        lib.optional (!cd.service.isLoopback address && places != [ ])
          "services.${name} listens on ${listens.${name}}, which other machines reach (${lib.concatStringsSep ", " places}): past the front, each of them can write under the name of any agent: ${hint}"
      ++ map (
        one:
        "services.${name} has -${one.flag}=${one.said}, which other machines reach (${lib.concatStringsSep ", " one.places}): past the front, each of them can write under the name of any agent: listen on loopback, or close the port"
      ) (otherListeners name)
      ++ map (
        one:
        "expose.${one.name} is a front without a login for services.${name}: each client that reaches the proxy can write under the name of any agent: set its front.auth${readers.${name} or ""}"
      ) (lib.filter (writesTo port) exposed)
    );
}
