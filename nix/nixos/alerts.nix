# Alert rules on the unit's own metrics, for the Prometheus or the vmalert of this machine.
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
  rules = import ./alert-rules.nix { inherit lib cd; };

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
  names = map (job: job.job_name);
  inPrometheus =
    prometheus.enable
    && !(prometheus.enableAgentMode or false)
    && lib.intersectLists (names cfg.scrapeConfigs) (names prometheus.scrapeConfigs) != [ ];
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
      types.submodule {
        config.settings.rule = lib.mkIf (active && !inPrometheus) [
          (json.generate "clan-discovery.vmalert.json" { groups = rules.withoutRecords groups; })
        ];
      }
    );
  };

  config = {
    services.clan-discovery.alerts.file = json.generate "clan-discovery.rules.json" {
      inherit groups;
    };
    services.prometheus.ruleFiles = lib.mkIf (active && inPrometheus) [ cfg.alerts.file ];

    assertions = map (what: {
      assertion = false;
      message = "services.clan-discovery.${what}";
    }) (rules.complaintsOf cfg.alerts.rules);
  };
}
