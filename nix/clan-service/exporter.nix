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

  mine = lib.concatLists (
    lib.mapAttrsToList (
      instance: roles:
      lib.optionals (roles ? exporter && roles.exporter ? ${machine}) (
        let
          settings = roles.exporter.${machine};
        in
        map (exporter: {
          inherit exporter instance settings;
          where = "instances.${instance}.roles.exporter.machines.${machine}.settings";
          inherit (exporter) port type;
          interfaces = shared.interfacesOf {
            inherit settings config;
            methods = shared.methodsOf seen;
          };
        }) (cd.service.exportersOf settings)
      )
    ) seen.instances
  );
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
  serving = lib.concatLists (
    lib.mapAttrsToList (
      instance: roles:
      map (settings: {
        inherit instance;
        type = "the server";
        port = cd.service.serverPort settings;
      }) (lib.optional ((roles.server or { }) ? ${machine}) roles.server.${machine})
    ) seen.instances
  );
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
      lib.concatMap (
        entry:
        map (what: {
          assertion = false;
          message = "clan-discovery: ${entry.where}: ${what}";
        }) (cd.service.complaintsOf entry.settings)
      ) mine
      ++ map (entry: {
        assertion = !entry.exporter.nixos;
        message = "clan-discovery: ${entry.where}: this NixOS has no services.prometheus.exporters.${entry.type}";
      }) others
      # Nobody would read them: it is a program of the user's, or a typo.
      ++ map (entry: {
        assertion = said entry.exporter.options == { };
        message = "clan-discovery: ${entry.where}: ${lib.concatStringsSep ", " (lib.attrNames (said entry.exporter.options))} would be settings of services.prometheus.exporters.${entry.type}, which this NixOS does not have";
      }) (lib.filter (entry: !entry.exporter.nixos) others)
      ++ map (entry: {
        assertion = config.services.prometheus.exporters.${entry.type}.enable;
        message = "clan-discovery: services.prometheus.exporters.${entry.type}.enable is false on ${machine}, and the server scrapes it: say `enable = false` in ${entry.where}";
      }) ofNixos
      # The server cannot see what this machine's own configuration says.
      ++ lib.concatMap (
        entry:
        lib.optional (!(torn ? ${entry.type})) {
          assertion = config.services.prometheus.exporters.${entry.type}.port == entry.port;
          message = "clan-discovery: services.prometheus.exporters.${entry.type}.port is ${
            toString config.services.prometheus.exporters.${entry.type}.port
          } on ${machine}, and the server scrapes it at ${toString entry.port}: say it as `port` in ${entry.where}";
        }
      ) ofNixos
      ++ lib.mapAttrsToList (port: entries: {
        assertion = false;
        message = "clan-discovery: ${machine}: port ${port} is that of ${told entries}: give one of them another `port`";
      }) clashing
      ++ lib.mapAttrsToList (type: entries: {
        assertion = false;
        message = "clan-discovery: ${machine}: ${type} has ${
          lib.concatMapStringsSep " and " (
            entry: "port ${toString entry.port} by the instance ${entry.instance}"
          ) entries
        }: NixOS has one of each type; give both the same port, or take one away";
      }) torn
      ++
        map
          (instance: {
            assertion = false;
            message = "clan-discovery: instances.${instance}.roles.server has no machine: no machine bears its tags, or none is named";
          })
          (
            lib.filter (instance: seen.instances.${instance}.server or null == { }) (
              lib.attrNames seen.instances
            )
          )
      ++ shared.unsaid config "exporter" ported
    );
  };
}
