# clan-core's own library without its flake: what evaluates a clan, with the services that a test names.
{
  lib,
  clanCore,
  modules ? { },
}:
let
  base = import (clanCore + "/lib") { inherit lib; };
  clanLib = lib.fix (
    lib.extends (_: _: {
      clan = import (clanCore + "/lib/clan") {
        inherit lib;
        clan-core = fake;
      };
    }) base.__unfix__
  );
  fake = {
    inherit clanLib lib;
    inputs.nixpkgs.lib = lib;
    clan = {
      inherit modules;
      templates = { };
      deprecatedModules = { };
    };
    # Of clan-core's own module, the part that shows a machine the clan.
    nixosModules.clanCore = clanCore + "/nixosModules/clanCore/dependencies.nix";
    darwinModules.clanCore = { };
    packages = { };
    modules.clan.default = import (clanCore + "/modules/clan") { clan-core = fake; };
  };
in
clanLib
