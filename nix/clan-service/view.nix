# What the service sees of the clan, in the shape that nix/lib takes: merged settings of every member of every instance
# of this module, and, where clan-core shows them, every machine with its tags and class.
{ lib }:
let
  roleOf =
    instance: role:
    lib.mapAttrs (_: machine: machine.finalSettings.config) (instance.roles.${role}.machines or { });
in
{
  # of : common -> options -> config -> view
  of =
    common: options: config:
    let
      instances = lib.mapAttrs (
        _: instance:
        lib.optionalAttrs (instance.roles ? server) { server = roleOf instance "server"; }
        // lib.optionalAttrs (instance.roles ? exporter) { exporter = roleOf instance "exporter"; }
      ) common.instances;
      named = lib.unique (
        lib.concatMap (instance: lib.concatMap lib.attrNames (lib.attrValues instance)) (
          lib.attrValues instances
        )
      );
      # clan-core puts its own config into each machine (nixosModules/clanCore/dependencies.nix); an older one does not.
      clanInventory =
        if options ? clanConfig && options.clanConfig.isDefined then
          config.clanConfig.inventory or null
        else
          null;
      clan = clanInventory.machines or null;
      known = if clan == null then lib.genAttrs named (_: { }) else clan;
      machines = lib.mapAttrs (_: machine: {
        tags =
          machine.tags or [
            "all"
            "nixos"
          ];
        machineClass = machine.machineClass or "nixos";
      }) known;
    in
    {
      inherit instances machines;
      server = common.machine;
      domain = common.meta.domain or "clan";
      # Instances of a module of our name from another input: their exporters are another module's, and not ours to see.
      foreign =
        if clanInventory == null then
          [ ]
        else
          lib.attrNames (
            lib.filterAttrs (
              name: instance: (instance.module.name or "") == "prometheus" && !(common.instances ? ${name})
            ) (clanInventory.instances or { })
          );
      # Members that are no machine of the clan: clan-core takes them without a word.
      strangers = lib.filter (name: !(machines ? ${name})) named;
    };
}
