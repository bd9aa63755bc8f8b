# `services.clan-discovery.fleet`: what all machines of a flake expose. It becomes `settings.inventory.exposed`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cd = import ../lib;
  cfg = config.services.clan-discovery;

  inherit (cfg) machine;
  others = removeAttrs cfg.fleet [ machine ];
  own = cd.exposed.from cfg;
  exposes = cfg.expose != { } || cfg.adoptScrapeConfigs != [ ];
  # The own one is not read through the fleet, where it may be missing.
  machines =
    lib.mapAttrs (_: cd.exposed.of) others
    // lib.optionalAttrs (exposes || cfg.fleet ? ${machine}) { ${machine} = own; };
in
{
  options.services.clan-discovery.fleet = mkOption {
    type = types.lazyAttrsOf types.raw;
    default = { };
    example = lib.literalExpression "self.nixosConfigurations // self.darwinConfigurations";
    description = ''
      All machines of the flake, by name. The options `expose`, `adoptScrapeConfigs`, `agent` and `tags` of each are
      sources of this machine; nothing else of them is evaluated. What this machine exposes needs no fleet.
    '';
  };

  # The condition must not depend on `settings`, which is defined here.
  config = lib.mkIf (cfg.enable && (cfg.fleet != { } || exposes)) {
    services.clan-discovery = {
      jobs = cd.exposed.jobsOf machine machines;
      settings.inventory.exposed = lib.mkDefault (
        (pkgs.formats.json { }).generate "clan-exposed.json" (cd.exposed.documentOf machine machines)
      );
    };
    assertions = [
      {
        assertion = cfg.fleet == { } || cfg.fleet ? ${machine};
        message = "services.clan-discovery.fleet has no '${machine}', which is this machine: ${
          import ./suggest.nix { inherit lib; } machine (lib.attrNames cfg.fleet) "add it."
        } If it has another name there, set services.clan-discovery.settings.server to that name";
      }
    ];
  };
}
