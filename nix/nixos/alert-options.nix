# The options of the alert rules, for the NixOS module and the settings of the role server.
lib:
let
  inherit (lib) mkOption types;
in
{
  enable = mkOption {
    type = types.bool;
    default = true;
    example = false;
    description = ''
      Whether the machine's Prometheus evaluates the alert rules of clan-discovery, or each of its vmalert instances if
      that Prometheus does not scrape the jobs. In static mode there are no metrics, and no rules.
    '';
  };

  rules = mkOption {
    type = types.attrsOf (
      types.submodule {
        options = {
          enable = mkOption {
            type = types.bool;
            default = true;
            description = "Whether the rule is used.";
          };
          for = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "1h";
            description = "How long the condition must hold, as a duration of Prometheus. Default: as shipped.";
          };
          labels = mkOption {
            type = types.attrsOf types.str;
            default = { };
            example.severity = "info";
            description = "Labels to add or replace.";
          };
        };
      }
    );
    default = { };
    example = {
      ClanTargetStray.enable = false;
      ClanMachineMissing.for = "1h";
      ClanMachineMissing.labels.severity = "info";
    };
    description = "Changes of the shipped rules, by the alert's name (docs/running.md).";
  };
}
