# A darwin machine in a role of this service: an assertion, because it has no NixOS exporters or servers.
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
    message = "clan-discovery: instances.${member.instance}.roles.${member.role} has the darwin machine ${machine}, which cannot run it: give the role the tag `nixos` instead of `all`";
  }) roles;
}
