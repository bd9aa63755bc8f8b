# The same jobs for Prometheus, VictoriaMetrics and vmagent, in the options that NixOS has for each.
{ lib, cd }:
let
  inherit (lib) mkDefault;
  shared = import ./common.nix { inherit lib cd; };

  # What is left of the settings is the backend's.
  rest =
    settings:
    removeAttrs settings (
      cd.service.serverWords
      ++ [
        "port"
        "scrapeConfigs"
      ]
    );

  # VictoriaMetrics and vmagent have few of Prometheus's settings: these say the same in their words.
  translated = [
    "extraFlags"
    "globalConfig"
    "remoteWrite"
    "retentionTime"
  ];
  urls = settings: map (entry: entry.url or "") settings.remoteWrite;
  scraping =
    settings: jobs:
    cd.victoriametrics jobs
    // lib.optionalAttrs (settings ? globalConfig) { global = settings.globalConfig; };
in
{
  # untranslatable : settings -> [ string ]: what is set, and means nothing to this backend.
  untranslatable =
    settings:
    let
      set = lib.filterAttrs (_: value: value != [ ] && value != { } && value != null) (rest settings);
      dropped = {
        prometheus = lib.attrNames (rest settings);
        victoriametrics = lib.remove "remoteWrite" translated;
        vmagent = lib.remove "retentionTime" translated;
      };
    in
    lib.subtractLists dropped.${settings.backend} (lib.attrNames set);

  # definition : { settings, options, jobs } -> definitions of `services`
  definition =
    {
      settings,
      options,
      jobs,
    }:
    let
      port = cd.service.serverPort settings;
    in
    {
      prometheus.prometheus = lib.mkMerge [
        {
          enable = true;
          port = mkDefault port;
          scrapeConfigs = jobs;
        }
        (shared.handed options.services.prometheus (rest settings))
      ];
      victoriametrics.victoriametrics = {
        enable = true;
        listenAddress = mkDefault ":${toString port}";
        prometheusConfig = scraping settings jobs;
        extraOptions = settings.extraFlags;
      }
      // lib.optionalAttrs (settings ? retentionTime) {
        retentionPeriod = mkDefault settings.retentionTime;
      };
      vmagent.vmagent = {
        enable = true;
        prometheusConfig = scraping settings jobs;
        extraArgs =
          lib.optional (port != cd.service.ownPorts.vmagent) "-httpListenAddr=:${toString port}"
          ++ map (url: "-remoteWrite.url=${url}") (lib.drop 1 (urls settings))
          ++ settings.extraFlags;
      }
      // lib.optionalAttrs (settings.remoteWrite != [ ]) {
        remoteWrite.url = mkDefault (lib.head (urls settings));
      };
    }
    .${settings.backend};

  # portIn : settings -> config -> int: where it listens in the end; the machine's own configuration may say otherwise.
  portIn =
    settings: config:
    if settings.backend == "prometheus" then
      config.services.prometheus.port
    else
      cd.service.serverPort settings;

  # jobsIn : settings -> config -> [ string ]: every job that it has in the end.
  jobsIn =
    settings: config:
    {
      prometheus = config.services.prometheus.scrapeConfigs;
      victoriametrics = config.services.victoriametrics.prometheusConfig.scrape_configs or [ ];
      vmagent = config.services.vmagent.prometheusConfig.scrape_configs or [ ];
    }
    .${settings.backend};
}
