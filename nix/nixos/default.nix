# The NixOS module: `services.clan-discovery`. Options are in `options.nix`, the unit in `unit.nix`, assertions in
# `assertions.nix`.
#
# Nix writes data and the program judges it: the settings become JSON, and the build of that JSON runs `clan-discovery
# check` on it, so that a typo fails the build. In static mode the build also runs `clan-discovery render`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cd = import ../lib;
  cfg = config.services.clan-discovery;
  render = import ./render.nix { inherit lib pkgs cfg; };
  unit = import ./unit.nix;
  static = cfg.mode == "static";
in
{
  # One file, imported twice (by a clan service and by hand), is one module.
  key = "clan-discovery/nixos";
  imports = [ ./options.nix ];

  config = lib.mkMerge [
    {
      services.clan-discovery.scrapeConfigs =
        if cfg.snapshot != null then
          cd.staticJobs (cd.snapshot cfg.snapshot)
        else
          lib.optionals cfg.enable (
            cd.fileSdJobs {
              inherit (cfg.settings.output) directory;
              inherit (render) jobs;
              # A new system changes what the link in /etc leads to, of which inotify says nothing.
              refreshInterval = if static then "30s" else null;
            }
          );
    }
    (lib.mkIf (cfg.snapshot != null) {
      warnings = import ./snapshot-warnings.nix {
        inherit lib cd config;
        inherit (render) jobs;
      };
    })
    (lib.mkIf cfg.enable {
      assertions = import ./assertions.nix {
        inherit lib cd cfg;
        inherit (render) readable;
      };

      environment.systemPackages = [ cfg.package ];
      # The operator types `clan-discovery explain`, and it is about this machine.
      environment.etc."clan-discovery/config.json".source = render.config;
      environment.variables.CLAN_DISCOVERY_CONFIG = lib.mkDefault "/etc/clan-discovery/config.json";
    })
    (lib.mkIf (cfg.enable && cfg.unreachableRoute) {
      systemd.services.clan-discovery-unreachable = unit.unreachable "${pkgs.iproute2}/bin/ip";
    })
    (lib.mkIf (cfg.enable && static) {
      environment.etc."clan-discovery/targets".source = render.targets;
    })
    (lib.mkIf (cfg.enable && !static) {
      users.users.clan-discovery = {
        isSystemUser = true;
        group = "clan-discovery";
        description = "clan-discovery";
      };
      users.groups.clan-discovery = { };

      systemd.services.clan-discovery = unit.service {
        inherit cfg;
        configFile = render.config;
        kill = "${pkgs.coreutils}/bin/kill";
      };
      systemd.timers = lib.mkIf (cfg.mode == "timer") {
        clan-discovery = unit.timer cfg;
      };
    })
  ];
}
