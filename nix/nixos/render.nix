# What the build makes from the settings: the checked config and, in static mode, the target files.
{
  lib,
  pkgs,
  cfg,
}:
let
  inherit (cfg) settings;
  cd = import ../lib;

  # Options that are null are not written. A null with a meaning (`shrink_after.rounds`) is in a freeform key.
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
      // lib.optionalAttrs (cfg.share != null) { jobs = settings.jobs // shares; }
    )
  );

  # The rules that leave targets to other servers: what this server should scrape depends on them.
  shares = lib.genAttrs (lib.subtractLists cd.unshared jobs) (
    job: lib.head (cd.sharded cfg.share [ (said (settings.jobs.${job} or { })) ])
  );

  run = name: pkgs.buildPackages.runCommand name { nativeBuildInputs = [ cfg.buildPackage ]; };

  # The build can read paths in the store only.
  inStore = import ./in-store.nix { inherit lib; };
  inventory = if settings.inventory == null then { } else settings.inventory;

  # The exporter types of a manifest's services and machines.
  manifest = if inventory.manifest or null == null then { } else inventory.manifest;
  given = lib.optionals (manifest != { }) (
    lib.concatMap lib.toList (
      lib.attrValues (manifest.exporters or { }) ++ [ (manifest.default or "node") ]
    )
  );
  typeOf = exporter: if lib.isString exporter then exporter else exporter.type or "";

  # composeFiles : Compose projects of a machine -> [ path ]
  composeFiles =
    project:
    lib.toList (project.files or [ ])
    ++ (project.env_files or [ ])
    ++ lib.concatMap composeFiles (project.projects or [ ]);

  all = sets: lib.attrValues (if sets == null then { } else sets);
  added =
    map typeOf given
    ++ lib.concatMap (list: lib.attrNames (list.targets or { })) (all settings.backends.static)
    ++ lib.concatMap (dns: lib.optional (dns.job or null != null) dns.job) (all settings.backends.dns)
    # A rule selects machines; parameters may give a probe of the inventory its target.
    ++ lib.attrNames (
      lib.filterAttrs (
        _: rule: rule.select or null != null || rule.params or { } != { }
      ) settings.exporters
    );
  probed = lib.attrNames (
    lib.filterAttrs (_: job: job ? params.target || job ? params.script) settings.jobs
  );
  sorted = names: lib.unique (lib.sort (a: b: a < b) names);

  # The jobs of the inventory, and those that the settings add.
  jobs = sorted (declared ++ probed);

  # The same without reading `settings.jobs`.
  declared = sorted (cfg.jobs ++ added);
in
rec {
  inherit declared jobs;

  # Whether a build can read everything that the config names.
  readable =
    inventory.flake or null == null
    && lib.all (path: path == null || inStore path) (
      [
        (inventory.file or null)
        (inventory.settings or null)
        (inventory.exports or null)
        (manifest.file or null)
        (inventory.exposed or null)
      ]
      ++ lib.concatMap composeFiles (all (inventory.compose or null))
    );

  config =
    if cfg.mode != "static" && cfg.checkConfig && readable then
      run "clan-discovery.json" ''
        clan-discovery check --config ${raw}
        cp ${raw} $out
      ''
    else
      raw;

  # fronts : string -> derivation: a directory with the file of fronts for a proxy.
  fronts =
    { kind, name }:
    run "clan-discovery-fronts" ''
      ${lib.optionalString cfg.checkConfig "clan-discovery check --config ${raw}"}
      mkdir $out
      clan-discovery show --config ${raw} --format ${kind} > $out/${name}
    '';

  # Fails on a job that is not listed, because no scrape config would read it.
  targets = run "clan-discovery-targets" ''
    clan-discovery render --config ${raw} --output $out --only-listed${
      lib.concatMapStrings (job: " --job ${lib.escapeShellArg job}") jobs
    }
  '';
}
