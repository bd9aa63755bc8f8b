# Alert rules on the unit's own metrics, for the Prometheus or the vmalert of this machine.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cd = import ../lib;
  cfg = config.services.clan-discovery;
  rules = import ./alert-rules.nix { inherit lib cd; };
  scraper = import ./scraper.nix { inherit lib cd; };

  json = pkgs.formats.json { };
  groups = rules.groupsOf (
    cfg.alerts
    // {
      silentAfter = toString (cfg.settings.policy.silent_after or "7d");
      pushed = cfg.settings.verify.pushed or true;
    }
  );

  active = cfg.enable && cfg.mode != "static" && cfg.alerts.enable;
  # A Prometheus that does not scrape these jobs does not have the metrics. Agent mode refuses rules.
  inherit (config.services) prometheus;
  # As they were written: `settings` depends on it, and a mistake in a job has a message of its own.
  written = lib.concatLists options.services.prometheus.scrapeConfigs.definitions;
  names = map (job: job.job_name or null);
  inPrometheus =
    prometheus.enable
    && !(prometheus.enableAgentMode or false)
    && lib.intersectLists (names cfg.scrapeConfigs) (names written) != [ ];

  # fileOf : settings of an instance of vmalert -> path
  fileOf =
    settings:
    if settings ? "remoteWrite.url" then
      cfg.alerts.file
    else
      json.generate "clan-discovery.vmalert.json" { groups = rules.withoutRecords groups; };

  # The programs that evaluate the rules, for `verify`, by names that no scraper has.
  evaluating =
    if inPrometheus then
      {
        alerts-prometheus = scraper.own { backend = "prometheus"; } config // {
          inherit (cfg.alerts) file;
        };
      }
    else
      lib.mapAttrs' (
        name: instance:
        lib.nameValuePair "alerts-${name}" (
          scraper.vmalert instance.settings // { file = fileOf instance.settings; }
        )
      ) (lib.filterAttrs (_: instance: instance.enable) config.services.vmalert.instances);
  asked = lib.filterAttrs (_: program: !program.closed) evaluating;
in
{
  options.services.clan-discovery.alerts = import ./alert-options.nix lib // {
    machine = mkOption {
      type = types.nullOr types.str;
      default = null;
      internal = true;
      description = "The machine whose metrics say what this server should scrape, if its store has those of other servers, or of agents, too.";
    };

    file = mkOption {
      type = types.path;
      readOnly = true;
      description = "The alert rules as a file, for a Prometheus or vmalert that is not on this machine.";
    };
  };

  # More of the option of nixpkgs: what each instance of vmalert has.
  options.services.vmalert.instances = mkOption {
    type = types.attrsOf (
      types.submodule (
        { config, ... }:
        {
          config.settings.rule = lib.mkIf (active && !inPrometheus) [
            (fileOf config.settings)
          ];
        }
      )
    );
  };

  config = {
    services.clan-discovery.alerts.file = json.generate "clan-discovery.rules.json" {
      inherit groups;
    };
    # The condition must not depend on `settings.verify`.
    services.clan-discovery.settings.verify = lib.mkIf (active && asked != { }) {
      rules = lib.mapAttrs (_: program: {
        url = lib.mkDefault program.url;
        files = lib.mkDefault [ program.file ];
      }) asked;
    };
    services.prometheus.ruleFiles = lib.mkIf (active && inPrometheus) [ cfg.alerts.file ];

    assertions = map (what: {
      assertion = false;
      message = "services.clan-discovery.${what}";
    }) (rules.complaintsOf cfg.alerts.rules);
  };
}
