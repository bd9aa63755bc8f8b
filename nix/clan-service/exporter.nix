# A machine in the role exporter: each of its exporters is enabled, on its port, and the port is open where it should be.
{ common, view }:
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (common) cd machine;
  shared = import ./common.nix { inherit lib cd; };
  seen = view.of common options config;

  # NixOS's own list, which is not ours: an older NixOS lacks some, a newer one has more. What was removed is still
  # there, as an option without any of an exporter's. Only those that are asked for are looked into: each is an evaluation.
  available =
    lib.filterAttrs (_: option: lib.isOption option && option.type.getSubOptions [ ] ? enable)
      (
        lib.intersectAttrs (lib.genAttrs (map (entry: entry.type) mine) (_: null)) (
          options.services.prometheus.exporters.type.getSubOptions [ ]
        )
      );

  mine = lib.concatMap (
    member:
    map (
      exporter:
      member
      // {
        inherit exporter;
        inherit (exporter) port type;
        interfaces = shared.interfacesOf {
          inherit (member) settings;
          inherit config;
          methods = shared.methodsOf seen;
        };
      }
    ) (cd.service.exportersOf member.settings)
  ) (seen.on seen.exporters);
  ported = lib.filter (entry: entry.port != null) mine;
  # A service (caddy, grafana) serves its metrics itself, a type of the user's own is the user's own.
  ofNixos = lib.filter (entry: available ? ${entry.type}) ported;
  others = lib.filter (entry: !(available ? ${entry.type})) ported;
  said = lib.filterAttrs (_: value: value != null && value != [ ] && value != { });

  # Names that the README of today's service gave, and that no node exporter takes: it would not start.
  misnamed = {
    disk = "diskstats";
    memory = "meminfo";
    network = "netdev";
  };
  collectors =
    entry:
    lib.optionals (entry.type == "node") (
      lib.filter (name: misnamed ? ${name}) (entry.exporter.options.enabledCollectors or [ ])
    );

  definition =
    entry:
    let
      wanted = entry.exporter.options;
      known = available.${entry.type}.type.getSubOptions [ ];
      # The role declares collectors for every type; an exporter that has none is not told of an empty list.
      told = lib.filterAttrs (name: value: known ? ${name} || !(value == [ ] || value == null)) wanted;
      renamed =
        told
        // lib.optionalAttrs (told ? enabledCollectors && entry.type == "node") {
          enabledCollectors = map (name: misnamed.${name} or name) told.enabledCollectors;
        };
    in
    {
      ${entry.type} = {
        enable = lib.mkDefault true;
        # Two instances that differ are told so below, in words of ours.
        port = lib.mkIf (entry.port == (lib.head ofType.${entry.type}).port) (lib.mkDefault entry.port);
      }
      // shared.handed known renamed;
    };

  # The server of this machine has a port, too.
  serving = map (member: {
    inherit (member) instance;
    type = "the server";
    port = cd.service.serverPort member.settings;
  }) (seen.on seen.servers);
  onPort = lib.groupBy (entry: toString entry.port) (ported ++ serving);
  # The same exporter from two instances is one; two different ones on one port are not.
  clashing = lib.filterAttrs (
    _: entries: lib.length (lib.unique (map (entry: entry.type) entries)) > 1
  ) onPort;
  ofType = lib.groupBy (entry: entry.type) ported;
  torn = lib.filterAttrs (
    type: entries: ofNixosType type && lib.length (lib.unique (map (entry: entry.port) entries)) > 1
  ) ofType;
  ofNixosType = type: lib.any (entry: entry.type == type) ofNixos;
  told =
    entries: lib.concatMapStringsSep " and " (entry: "${entry.type} (${entry.instance})") entries;

  refuse = message: {
    assertion = false;
    message = "clan-discovery: ${message}";
  };
  refuseIf = condition: message: lib.optional condition (refuse message);
  refusedOf =
    entry: map (what: refuse "${entry.where}: ${what}") (cd.service.complaintsOf entry.settings);
  # Of a program of the user's own, nobody would read them; else it is a typo.
  refusedOfOther =
    entry:
    let
      unread = lib.attrNames (said entry.exporter.options);
      option = "services.prometheus.exporters.${entry.type}";
    in
    if entry.exporter.nixos then
      [ (refuse "${entry.where}: this NixOS has no ${option}") ]
    else
      refuseIf (unread != [ ])
        "${entry.where}: ${lib.concatStringsSep ", " unread} would be settings of ${option}, which this NixOS does not have";
  # The server cannot see what this machine's own configuration says.
  refusedOfNixos =
    entry:
    let
      exporter = config.services.prometheus.exporters.${entry.type};
      option = "services.prometheus.exporters.${entry.type}";
    in
    refuseIf (!exporter.enable)
      "${option}.enable is false on ${machine}, and the server scrapes it: say `enable = false` in ${entry.where}"
    ++
      refuseIf (!(torn ? ${entry.type}) && exporter.port != entry.port)
        "${option}.port is ${toString exporter.port} on ${machine}, and the server scrapes it at ${toString entry.port}: say it as `port` in ${entry.where}";
in
{
  config = lib.mkIf (mine != [ ]) {
    services.prometheus.exporters = lib.mkMerge (map definition ofNixos);
    networking.firewall.interfaces = shared.opened ported;

    warnings = lib.concatMap (
      entry:
      map (
        name:
        "clan-discovery: ${entry.where}.enabledCollectors: node exporter has no collector ${name}; ${misnamed.${name}} is enabled, which it has anyway"
      ) (collectors entry)
    ) ofNixos;

    assertions = lib.unique (
      lib.concatMap refusedOf mine
      ++ lib.concatMap refusedOfNixos ofNixos
      ++ lib.concatMap refusedOfOther others
      ++ lib.mapAttrsToList (
        port: entries:
        refuse "${machine}: port ${port} is that of ${told entries}: give one of them another `port`"
      ) clashing
      ++ lib.mapAttrsToList (
        type: entries:
        refuse "${machine}: ${type} has ${
          lib.concatMapStringsSep " and " (
            entry: "port ${toString entry.port} by the instance ${entry.instance}"
          ) entries
        }: NixOS has one of each type; give both the same port, or take one away"
      ) torn
      ++ map (role: refuse "${role} has no machine: no machine bears its tags, or none is named") (
        lib.filter (lib.hasSuffix ".server") seen.emptyRoles
      )
      ++ shared.unsaid config "exporter" ported
    );
  };
}
