# Warnings for what a committed snapshot lacks.
{
  lib,
  cd,
  config,
  jobs,
}:
let
  source = cd.snapshot config.services.clan-discovery.snapshot;
  names = map (job: job.job_name or "");
  missing = lib.subtractLists (lib.attrNames (cd.groups source)) jobs;
  scraped = names (
    config.services.prometheus.scrapeConfigs
    ++ config.services.victoriametrics.prometheusConfig.scrape_configs or [ ]
    ++ config.services.vmagent.prometheusConfig.scrape_configs or [ ]
  );
  additional = lib.subtractLists scraped (names (cd.additional source));

  warnIf =
    found: message:
    lib.optional (
      found != [ ]
    ) "clan-discovery: services.clan-discovery.snapshot ${message (lib.concatStringsSep ", " found)}";
in
warnIf missing (listed: "has no job ${listed}: write the file again with `clan-discovery snapshot`")
++ warnIf additional (
  listed:
  "has the additional scrape config ${listed}, which is not used: add `lib.additional` of the snapshot to the scraper"
)
++
  lib.optional (config.services.clan-discovery.settings.jobs != { })
    "clan-discovery: services.clan-discovery.snapshot is set, so `jobs` of the settings is not used: remove it, or set its keys where the scrape configs are used"
