# A darwin machine in a role of this service: NixOS's exporters and servers are not there, and no target is made of it.
{ common }:
{ lib, ... }:
let
  inherit (common) machine;
  roles = lib.concatLists (
    lib.mapAttrsToList (
      instance: value:
      map (role: { inherit instance role; }) (
        lib.filter (role: value.roles.${role}.machines or { } ? ${machine}) (lib.attrNames value.roles)
      )
    ) common.instances
  );
in
{
  assertions = map (member: {
    assertion = false;
    message = "clan-discovery: instances.${member.instance}.roles.${member.role} has the darwin machine ${machine}, for which there is nothing to run: give the role the tag `nixos` and not `all`";
  }) roles;
}
