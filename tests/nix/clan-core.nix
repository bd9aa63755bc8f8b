# clan-core's library without its flake, to evaluate a clan with the services that a test names.
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
    # The part of clan-core's module that passes the clan to a machine.
    nixosModules.clanCore = clanCore + "/nixosModules/clanCore/dependencies.nix";
    darwinModules.clanCore = { };
    packages = { };
    modules.clan.default = import (clanCore + "/modules/clan") { clan-core = fake; };
  };
in
clanLib
