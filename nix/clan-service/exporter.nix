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

  # NixOS's own list, which is not ours: an older NixOS lacks some, a newer one has more.
  available = options.services.prometheus.exporters.type.getSubOptions [ ];

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
  ofNixos = lib.filter (entry: entry.exporter.nixos && available ? ${entry.type}) ported;

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
        enable = true;
        # Two instances that differ are told so below, in words of ours.
        port = lib.mkIf (entry.port == (lib.head ofType.${entry.type}).port) (lib.mkDefault entry.port);
      }
      // shared.handed known renamed;
    };

  onPort = lib.groupBy (entry: toString entry.port) ported;
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
      map (entry: {
        assertion = entry.port != null;
        message = "clan-discovery: ${entry.where}: unknown exporter type '${entry.type}', and no `port`: take a name of services.prometheus.exporters, or give the port on which it serves";
      }) mine
      ++ map (entry: {
        assertion = !entry.exporter.nixos || available ? ${entry.type};
        message = "clan-discovery: ${entry.where}: this NixOS has no services.prometheus.exporters.${entry.type}";
      }) ported
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
      ++ lib.concatMap (
        entry:
        map (type: {
          assertion = false;
          message = "clan-discovery: ${entry.where}: ${type} is given by `exporterType` and by `exporters.${type}`: take one away";
        }) (cd.service.twiceOf entry.settings)
      ) mine
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
