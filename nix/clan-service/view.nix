# What the service sees of the clan, in the shape that nix/lib takes: merged settings of every member of every instance
# of this module, and, where clan-core shows them, every machine with its tags and class.
{ lib }:
{
  # of : common -> options -> config -> view
  of =
    common: options: config:
    let
      roleOf = role: lib.mapAttrs (_: machine: machine.finalSettings.config) (role.machines or { });
      instances = lib.mapAttrs (
        _: instance: lib.mapAttrs (_: roleOf) (lib.getAttrs (roles instance) instance.roles)
      ) common.instances;
      roles = instance: lib.intersectLists [ "server" "exporter" ] (lib.attrNames instance.roles);

      # members : string -> [ { instance, machine, settings, where } ]: everybody in a role.
      members =
        role:
        lib.concatLists (
          lib.mapAttrsToList (
            instance: roles:
            lib.mapAttrsToList (machine: settings: {
              inherit instance machine settings;
              where = "instances.${instance}.roles.${role}.machines.${machine}.settings";
            }) (roles.${role} or { })
          ) instances
        );
      servers = members "server";
      exporters = members "exporter";
      named = lib.unique (map (member: member.machine) (servers ++ exporters));

      # clan-core puts its own config into each machine (nixosModules/clanCore/dependencies.nix); an older one does not.
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
      }) (if clan == null then lib.genAttrs named (_: { }) else clan);
    in
    {
      inherit
        instances
        machines
        servers
        exporters
        ;
      server = common.machine;
      domain = common.meta.domain or "clan";

      # on : [ member ] -> [ member ]: those of this machine.
      on = lib.filter (member: member.machine == common.machine);
      isDarwin = name: (machines.${name} or { machineClass = ""; }).machineClass == "darwin";

      # Instances of a module of our name from another input: their exporters are not ours to see.
      foreign = lib.attrNames (
        lib.filterAttrs (
          name: instance: (instance.module.name or "") == "prometheus" && !(instances ? ${name})
        ) (inventory.instances or { })
      );
      emptyRoles = lib.concatLists (
        lib.mapAttrsToList (
          instance: roles:
          map (role: "instances.${instance}.roles.${role}") (
            lib.filter (role: roles.${role} == { }) (lib.attrNames roles)
          )
        ) instances
      );
      # Members that are no machine of the clan: clan-core accepts them silently.
      strangers = lib.filter (name: !(machines ? ${name})) named;
    };
}
