# The clan as the service sees it, in the shape that nix/lib reads: merged settings of the members of all instances of
# this module and, if clan-core provides them, all machines with their tags and class.
{ lib }:
let
  suggest = import ../nixos/suggest.nix { inherit lib; };
  scraper = import ../nixos/scraper.nix {
    inherit lib;
    cd = import ../lib;
  };
in
{
  # of : common -> options -> config -> view
  of =
    common: options: config:
    let
      roleOf =
        role: members:
        lib.mapAttrs (
          name: machine:
          let
            settings = machine.finalSettings.config;
          in
          if role == "server" && name != common.machine then lib.mapAttrs orDefault settings else settings
        ) (members.machines or { });
      instances = lib.mapAttrs (
        _: instance: lib.mapAttrs roleOf (lib.getAttrs (roles instance) instance.roles)
      ) common.instances;

      # A mistyped setting of another server fails that server, and must not fail this machine.
      orDefault =
        name: value:
        let
          tried = builtins.tryEval (builtins.deepSeq value value);
        in
        if tried.success then tried.value else defaults.${name} or null;
      defaults =
        (lib.evalModules {
          specialArgs = { inherit (common) meta; };
          modules = [ (import ./interface.nix { inherit (common) cd; }).server ];
        }).config;

      roles =
        instance:
        lib.intersectLists [
          "server"
          "exporter"
          "front"
          "agent"
          "logs"
          "alerting"
          "dashboards"
          "storage"
        ] (lib.attrNames instance.roles);

      # members : string -> [ { instance, machine, settings, said, where } ]: all members of a role.
      members =
        role:
        lib.concatLists (
          lib.mapAttrsToList (
            instance: roles:
            lib.mapAttrsToList (machine: settings: {
              inherit instance machine settings;
              # The same with what is mistyped.
              said = common.instances.${instance}.roles.${role}.machines.${machine}.finalSettings.config;
              where = "instances.${instance}.roles.${role}.machines.${machine}.settings";
            }) (roles.${role} or { })
          ) instances
        );
      servers = lib.partition (member: common.cd.service.isServer member.settings) (members "server");
      exporters = members "exporter";
      fronts = members "front";
      agents = members "agent";
      alerting = members "alerting";
      dashboards = members "dashboards";
      storage = members "storage";
      # The stores of logs: [ member // { port, url } ], with the URL on its own machine.
      stores = map (
        member:
        let
          inherit (member.settings) backend listenAddress;
          port =
            if member.settings.port != null then
              member.settings.port
            else if backend == "loki" then
              3100
            else
              9428;
        in
        member
        // {
          inherit port;
          url = scraper.urlOf listenAddress port;
        }
      ) (members "logs");
      listed = members "server" ++ exporters ++ fronts ++ agents ++ stores ++ alerting ++ dashboards ++ storage;
      named = lib.unique (map (member: member.machine) listed);

      # clan-core puts its config into each machine (nixosModules/clanCore/dependencies.nix); older versions do not.
      shown = options ? clanConfig && options.clanConfig.isDefined;
      inventory = if shown then config.clanConfig.inventory else null;
      clan = inventory.machines or null;
      machines = lib.mapAttrs (_: machine: {
        tags =
          machine.tags or [
            "all"
            "nixos"
          ];
        machineClass = machine.machineClass or "nixos";
        description = machine.description or null;
      }) (if clan == null then lib.genAttrs named (_: { }) else clan);
      # receivers : [ member // { url } ]: members of the role front that receive, and where agents reach them. A proxy that
      # listens elsewhere is set in `urls` of the agents.
      receivers = map (member: member // { url = urlOf member.settings; }) (
        lib.filter (
          { settings, ... }@front:
          if settings.receive.enable == null then agents != [ ] && receives front else settings.receive.enable
        ) fronts
      );
      # Agents send everything to each of them: a front without a store must not write to that of another front.
      receives = front: hasStore front || !lib.any hasStore fronts;
      hasStore =
        { machine, settings, ... }:
        settings.receive.metrics.url != null
        || settings.receive.logs.url != null
        || lib.any (one: one.machine == machine) (
          stores ++ lib.filter (one: one.settings.backend == "victoriametrics") servers.right
        );
      urlOf =
        { receive, ... }@settings:
        let
          below = lib.optionalString (
            !lib.hasInfix "." receive.domain && settings.domain != null
          ) ".${settings.domain}";
          scheme = if settings.tls == "off" then "http" else "https";
          port = lib.optionalString (receiverOf settings == "vmauth") ":${toString receive.port}";
        in
        "${scheme}://${lib.toLower (receive.domain + below)}${port}";
      receiverOf =
        settings:
        if settings.receive.kind != null then
          settings.receive.kind
        else if settings.kind == "nginx" then
          "nginx"
        else
          "vmauth";
      isUnknown = member: !(machines ? ${member.machine});
      unknown =
        member:
        "${lib.removeSuffix ".settings" member.where}: the clan has no machine '${member.machine}': ${
          suggest member.machine (lib.attrNames machines) "remove it, or add it to `inventory.machines`"
        }";
    in
    {
      inherit
        instances
        machines
        agents
        alerting
        dashboards
        exporters
        fronts
        receivers
        storage
        stores
        ;
      servers = servers.right;
      # evaluates : member of the role server -> bool: vmagent evaluates no rules, but vmalert reads what it writes.
      evaluates =
        member: common.cd.declared.evaluates (map (one: one.settings) storage) member.settings;
      # Members of the role server with `enable = false`.
      off = servers.wrong;
      server = common.machine;
      domain = common.meta.domain or "clan";

      # isAgent : string -> bool: whether a machine sends its metrics.
      isAgent = name: lib.any (member: member.machine == name) agents;
      # sendsLogs : member of the role agent -> bool
      sendsLogs =
        member: if member.settings.logs.enable == null then stores != [ ] else member.settings.logs.enable;

      # entriesOf : [ member ] -> [ member // { exporter, port, type } ]: the exporters of members of the role exporter.
      entriesOf = lib.concatMap (
        member:
        map (
          exporter:
          member
          // {
            inherit exporter;
            inherit (exporter) port type;
          }
        ) (common.cd.service.exportersOf member.settings)
      );

      # on : [ member ] -> [ member ]: the members on this machine.
      on = lib.filter (member: member.machine == common.machine);
      # machinesOf : [ member ] -> [ string ]: each machine once.
      machinesOf = members: lib.unique (map (member: member.machine) members);
      isDarwin = name: (machines.${name} or { machineClass = ""; }).machineClass == "darwin";

      # Whether this machine is a client of clan-core's `monitoring`, whose Alloy sends to Mimir.
      isMonitored =
        let
          isMember =
            client:
            client.machines or { } ? ${common.machine}
            ||
              lib.intersectLists (lib.attrNames (client.tags or { }))
                (machines.${common.machine} or { tags = [ ]; }).tags != [ ];
        in
        lib.any (
          instance:
          (instance.module.name or "") == "monitoring"
          && lib.elem (instance.module.input or null) [
            null
            "clan-core"
          ]
          && isMember (instance.roles.client or { })
        ) (lib.attrValues (inventory.instances or { }));

      # Instances of a module with our name from another input: their exporters are not visible here.
      foreign = lib.attrNames (
        lib.filterAttrs (
          name: instance: (instance.module.name or "") == "prometheus" && !(instances ? ${name})
        ) (inventory.instances or { })
      );
      # emptyRoles : string -> [ string ]: what is wrong where an instance has the role without a machine.
      emptyRoles =
        role:
        map (
          instance:
          "instances.${instance}.roles.${role} has no machine: name one, or add one of its tags to a machine"
        ) (lib.filter (name: instances.${name}.${role} or null == { }) (lib.attrNames instances));
      # Members that are not machines of the clan, which clan-core accepts silently.
      strangers = map unknown (lib.filter isUnknown listed);
      # The same where they are the only servers, and no server can say so.
      unknownServers = lib.optionals (lib.all isUnknown (members "server")) (
        map unknown (members "server")
      );
    };
}
