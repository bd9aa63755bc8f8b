# The files that a build makes of the settings: the checked config, and in static mode the target files.
{
  lib,
  pkgs,
  cfg,
}:
let
  inherit (cfg) settings;

  # An option that was left at null is not written. A null that means something (`shrink_after.rounds`) is in a free key.
  said = lib.filterAttrs (_: value: value != null);
  each = sets: if sets == null then null else lib.mapAttrs (_: said) sets;
  raw = (pkgs.formats.json { }).generate "clan-discovery-config.json" (
    said (
      settings
      // {
        backends = said (settings.backends // { tailscale = each settings.backends.tailscale; });
        exporters = each settings.exporters;
        inventory = if settings.inventory == null then null else said settings.inventory;
      }
    )
  );

  run = name: pkgs.buildPackages.runCommand name { nativeBuildInputs = [ cfg.buildPackage ]; };

  # A path in the store can be read by a build, one that appears at run time cannot.
  inStore = path: path == null || lib.isPath path || lib.hasPrefix builtins.storeDir (toString path);
  inventory = if settings.inventory == null then { } else settings.inventory;

  all = sets: lib.attrValues (if sets == null then { } else sets);
  added =
    lib.concatMap (list: lib.attrNames (list.targets or { })) (all settings.backends.static)
    ++ lib.concatMap (dns: lib.optional (dns.job or null != null) dns.job) (all settings.backends.dns)
    # A rule picks machines; parameters may give a probe of the inventory its target.
    ++ lib.attrNames (
      lib.filterAttrs (
        _: rule: rule.select or null != null || rule.params or { } != { }
      ) settings.exporters
    );
in
rec {
  # Whether a build can read everything that the config names.
  readable =
    inventory.flake or null == null
    && lib.all inStore [
      (inventory.file or null)
      (inventory.settings or null)
      (inventory.exports or null)
    ];

  # Every job: those of the inventory, and those that the settings add.
  jobs = lib.unique (lib.sort (a: b: a < b) (cfg.jobs ++ added));

  config =
    if cfg.mode != "static" && cfg.checkConfig && readable then
      run "clan-discovery.json" ''
        clan-discovery check --config ${raw}
        cp ${raw} $out
      ''
    else
      raw;

  # Fails on a job that is not in the list, for which there would be no scrape config.
  targets = run "clan-discovery-targets" ''
    clan-discovery render --config ${raw} --output $out --only-listed${
      lib.concatMapStrings (job: " --job ${lib.escapeShellArg job}") jobs
    }
  '';
}
