# The server's alert rules, and how its metrics reach the scraper: definitions of `services.clan-discovery`.
{
  lib,
  cd,
  options,
  # settings of the first instance
  settings,
  # the jobs of the user
  additional,
  # whether several servers share the targets
  shares,
  # the name of this server if there are others, or agents: null or string
  own,
  # whether this server scrapes the machine's node exporter
  scrapesItself,
  mode,
}:
let
  inherit (lib) mkDefault mkIf;
  shared = import ./common.nix { inherit lib cd; };
  rules = import ../nixos/alert-rules.nix { inherit lib cd; };
  # The user's job replaces ours.
  ownJob = lib.any (job: job.job_name or "" == "clan-discovery") additional;
in
{
  alerts = {
    enable = mkDefault settings.alerts.enable;
    machine = own;
    rules =
      (shared.handed options.services.clan-discovery.alerts {
        rules =
          # Another server may scrape this machine's node exporter, so that its metrics are absent here.
          lib.optionalAttrs (shares && mode == "timer") { ClanDiscoveryAbsent.enable = false; }
          # The others are assertions.
          // rules.valid settings.alerts.rules;
      }).rules;
  };

  metrics = {
    scrape = mkIf ownJob (mkDefault "none");
    # A node exporter that is no target may have no scraper at all.
    isNodeScraped =
      if mode == "resident" then
        scrapesItself && !shares
      else
        # A job of the user may be its scraper.
        scrapesItself || shares || additional != [ ] || settings.staticTargets ? node;
  };
}
