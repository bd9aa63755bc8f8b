# The exports of a clan with several networks, evaluated by real clan-core without flakes, network or daemon. One
# machine's address on yggdrasil is generated; those of the others throw.
{
  nixpkgsLib,
  clanCore,
  directory,
}:
let
  lib = import nixpkgsLib;
  clanLib = import ./clan-core.nix {
    inherit lib clanCore;
    modules = lib.genAttrs [ "internet" "tor" "wireguard" "yggdrasil" ] (
      name: import (clanCore + "/clanServices/${name}")
    );
  };
  clan = clanLib.clan {
    self = {
      inputs = { };
    };
    inherit directory;
    meta.name = "demo";
    inventory = {
      machines = {
        monitor = { };
        db = { };
        web = { };
      };
      instances.wg = {
        module.name = "wireguard";
        roles.peer.tags.all = { };
      };
      instances.internet.roles.default.machines.web.settings.host = "203.0.113.7";
      instances.yggdrasil.roles.default.tags.all = { };
      instances.tor.roles.server.tags.all = { };
    };
  };
in
clan.config.exports
