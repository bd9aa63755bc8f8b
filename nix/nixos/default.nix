# The NixOS module: `services.clan-discovery`. Options are in `options.nix`, the unit in `unit.nix`, assertions in
# `assertions.nix`.
#
# The settings become JSON, and the build runs `clan-discovery check` on it, so that a typo fails the build. In static
# mode it also runs `clan-discovery render`.
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
  web = import ./web.nix { inherit lib config; };
  static = cfg.mode == "static";
  inherit (cfg) machine;
in
{
  # Imported twice (by a clan service and by hand), it is still one module.
  key = "clan-discovery/nixos";
  imports = [
    ./agent
    ./alerting
    ./alerts.nix
    ./dashboards
    ./expose.nix
    ./fleet.nix
    ./front
    ./metrics.nix
    ./options.nix
    ./receive
    ./stack
    ./storage
  ];

  config = lib.mkMerge [
    {
      services.clan-discovery.scrapeConfigs =
        if cfg.snapshot != null then
          cd.staticJobs (cd.snapshot cfg.snapshot)
        else
          lib.optionals cfg.enable (
            cd.configured (lib.filterAttrsRecursive (_: value: value != null) cfg.settings.jobs) (
              cd.fileSdJobs {
                inherit (cfg.settings.output) directory split;
                inherit (render) jobs;
                # A new system changes the target of the link in /etc, without an inotify event.
                refreshInterval = if static then "30s" else null;
              }
            )
            ++ lib.optional (cfg.metrics.scrape == "listen" && cfg.metrics.listen != null) {
              job_name = "clan-discovery";
              static_configs = [
                {
                  targets = [ cfg.metrics.listen ];
                  labels = lib.genAttrs [ "instance" "machine" ] (_: machine);
                }
              ];
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
        inherit
          lib
          cd
          cfg
          web
          ;
        inherit (render) readable;
      };
      networking.firewall.interfaces = web.opened;

      environment.systemPackages = [ cfg.package ];
      # So that `clan-discovery explain` uses the config of this machine.
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
