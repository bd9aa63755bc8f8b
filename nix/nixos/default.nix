# The NixOS module: `services.clan-discovery`. Options are in `options.nix`, what the unit may do in `unit.nix`, what must
# not be in `assertions.nix`; this file puts them together.
#
# Nix writes data and the binary judges it: the settings become JSON, and the derivation of that JSON runs
# `clan-discovery check` on it, so that a typo fails the build and not the timer at night.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.clan-discovery;
  render = import ./render.nix { inherit lib pkgs; };
  unit = import ./unit.nix;

  configFile = render.config cfg;
  service = unit.service {
    inherit cfg configFile;
    kill = "${pkgs.coreutils}/bin/kill";
  };
in
{
  # One file, imported twice (by a clan service and by hand), is one module.
  key = "clan-discovery/nixos";
  imports = [ ./options.nix ];

  config = lib.mkIf cfg.enable {
    assertions = import ./assertions.nix { inherit lib cfg; };

    environment.systemPackages = [ cfg.package ];
    # The operator types `clan-discovery doctor`, and it is about this machine.
    environment.etc."clan-discovery/config.json".source = configFile;
    environment.variables.CLAN_DISCOVERY_CONFIG = lib.mkDefault "/etc/clan-discovery/config.json";

    users.users.clan-discovery = {
      isSystemUser = true;
      group = "clan-discovery";
      description = "clan-discovery";
    };
    users.groups.clan-discovery = { };

    systemd.services.clan-discovery = service;
    systemd.timers = lib.mkIf (cfg.mode == "timer") {
      clan-discovery = unit.timer cfg;
    };
    systemd.services.clan-discovery-unreachable = lib.mkIf cfg.unreachableRoute (
      unit.unreachable "${pkgs.iproute2}/bin/ip"
    );
  };
}
