# The same jobs for each backend, in its NixOS options (those of Alloy are in alloy.nix).
{ lib, cd }:
let
  inherit (lib) mkDefault;
  shared = import ./common.nix { inherit lib cd; };

  # The other settings belong to the backend.
  rest =
    settings:
    removeAttrs settings (
      cd.service.serverWords
      ++ [
        "port"
        "retentionTime"
        "scrapeConfigs"
      ]
    );

  # Settings of Prometheus that VictoriaMetrics and vmagent have under other names.
  translated = [
    "extraFlags"
    "globalConfig"
    "listenAddress"
    "remoteWrite"
  ];
  # Prometheus in agent mode has none of these, and refuses to start with some.
  ofServer = [
    "alertmanagers"
    "remoteRead"
    "retentionTime"
    "ruleFiles"
    "rules"
  ];
  # unlessAgent : config -> definitions of services.prometheus -> the same without these in agent mode
  unlessAgent =
    config:
    lib.mapAttrs (
      name: value:
      if lib.elem name ofServer then
        lib.mkIf (!config.services.prometheus.enableAgentMode) value
      else
        value
    );
  isSet = value: value != [ ] && value != { } && value != null;
  # Prometheus's default is 15 days; the service that this one replaces has 30, and nobody must lose samples.
  retention =
    settings: mkDefault (if settings.retentionTime == null then "30d" else settings.retentionTime);
  stores = {
    prometheus = true;
    victoriametrics = true;
    vmagent = false;
    alloy = false;
  };
  urls = settings: map (entry: entry.url or "") settings.remoteWrite;
  # The keys of Prometheus's global section that these two know; they refuse a file with any other.
  globalOf = lib.intersectAttrs {
    external_labels = null;
    scrape_interval = null;
    scrape_timeout = null;
  };
  # The user's own jobs may use `%{NAME}`; generated jobs must not contain it.
  scraping =
    settings: ours: additional:
    {
      scrape_configs = lib.optionals (ours != [ ]) (cd.victoriametrics ours).scrape_configs ++ additional;
    }
    // lib.optionalAttrs (settings ? globalConfig) { global = globalOf settings.globalConfig; };
  # Address and port of VictoriaMetrics, which may be ":8428".
  endpointOf = config: builtins.match "(.*):([0-9]+)" config.services.victoriametrics.listenAddress;
  # Addresses of overlay networks are mostly IPv6, which these two do not dial by default.
  ipv6 = "-enableTCP6";
in
{
  # untranslatable : settings -> [ string ]: settings that this backend does not have.
  untranslatable =
    settings:
    let
      set = lib.filterAttrs (_: isSet) (rest settings);
      dropped = {
        prometheus = lib.attrNames (rest settings);
        victoriametrics = lib.remove "remoteWrite" translated;
        vmagent = translated;
        alloy = lib.subtractLists [ "listenAddress" "remoteWrite" ] translated;
      };
    in
    lib.subtractLists dropped.${settings.backend} (lib.attrNames set)
    ++ lib.optional (!stores.${settings.backend} && settings.retentionTime != null) "retentionTime"
    ++ lib.optional (settings.backend == "alloy" && settings.port != null) "port"
    ++ lib.optional (settings.backend != "alloy" && settings.forwardTo != [ ]) "forwardTo";

  # unscraped : settings -> [ string ]: keys of `globalConfig` that this backend refuses.
  unscraped =
    settings:
    let
      global = settings.globalConfig or { };
      known = lib.attrNames (globalOf global);
    in
    lib.optionals (settings.backend != "prometheus") (
      lib.subtractLists (
        if settings.backend == "alloy" then lib.remove "external_labels" known else known
      ) (lib.attrNames global)
    );

  # differing : [ settings ] -> [ string ]: names that a further instance of one machine sets differently from the first.
  # Lists are joined; of other settings, only those of the first instance are used.
  differing =
    all:
    let
      scalars =
        settings:
        lib.filterAttrs (_: value: !lib.isList value) (
          rest settings
          // {
            alerts = lib.optionalAttrs (
              !settings.alerts.enable || settings.alerts.rules != { }
            ) settings.alerts;
            inherit (settings)
              jobs
              mode
              policy
              port
              retentionTime
              snapshot
              ;
            verifyInterval = settings.verifyInterval;
            web = lib.optionalAttrs settings.web.enable settings.web;
            securityFiles = lib.filterAttrs (_: path: path != null) settings.securityFiles;
          }
        );
      first = scalars (lib.head all);
      others = map scalars (lib.tail all);
    in
    lib.unique (
      lib.concatMap (
        other:
        lib.filter (
          name: other.${name} != null && other.${name} != { } && (first.${name} or null) != other.${name}
        ) (lib.attrNames other)
      ) others
    );

  # omitted : settings -> config -> [ string ]: settings that Prometheus in agent mode does not have.
  omitted =
    settings: config:
    lib.optionals (settings.backend == "prometheus" && config.services.prometheus.enableAgentMode) (
      lib.filter (name: isSet (settings.${name} or null)) ofServer
    );

  # first : { settings, config, options, ours, additional } -> definitions of `services`
  first =
    {
      settings,
      config,
      options,
      ours,
      additional,
    }:
    let
      port = cd.service.serverPort settings;
      host = settings.listenAddress or "";
      listen = "${if cd.service.isIpv6 host then "[${host}]" else host}:${toString port}";
    in
    {
      prometheus.prometheus = lib.mkMerge [
        (unlessAgent config {
          enable = mkDefault true;
          port = mkDefault port;
          retentionTime = retention settings;
          scrapeConfigs = ours ++ additional;
        })
        (unlessAgent config (shared.handed options.services.prometheus (rest settings)))
      ];
      victoriametrics.victoriametrics = {
        enable = mkDefault true;
        listenAddress = mkDefault listen;
        prometheusConfig = scraping settings ours additional;
        extraOptions = [ ipv6 ] ++ settings.extraFlags;
        retentionPeriod = retention settings;
      };
      vmagent.vmagent = {
        enable = mkDefault true;
        prometheusConfig = scraping settings ours additional;
        # The storage sets it, too, also without a clan.
        extraArgs =
          lib.optional (!config.services.clan-discovery.storage.writes) ipv6
        ++ lib.optional (listen != ":${toString cd.service.ownPorts.vmagent}") "-httpListenAddr=${listen}"
        ++ map (url: "-remoteWrite.url=${url}") (lib.drop 1 (urls settings))
        ++ settings.extraFlags;
      }
      // lib.optionalAttrs (settings.remoteWrite != [ ]) {
        remoteWrite.url = mkDefault (lib.head (urls settings));
      };
      alloy.alloy = {
        enable = mkDefault true;
        inherit (settings) extraFlags;
      };
    }
    .${settings.backend};

  # further : settings -> config -> definitions of `services`: what a further instance of the machine adds.
  further =
    settings: config:
    {
      prometheus.prometheus = unlessAgent config (lib.filterAttrs (_: lib.isList) (rest settings));
      victoriametrics.victoriametrics.extraOptions = settings.extraFlags;
      vmagent.vmagent.extraArgs =
        map (url: "-remoteWrite.url=${url}") (urls settings) ++ settings.extraFlags;
      alloy.alloy = { inherit (settings) extraFlags; };
    }
    .${settings.backend};

  # portIn : settings -> config -> int or null: the final port; the machine's own configuration may change it.
  # Alloy listens on loopback only.
  portIn =
    settings: config:
    let
      said = endpointOf config;
    in
    {
      prometheus = config.services.prometheus.port;
      victoriametrics =
        if said == null then cd.service.serverPort settings else lib.toInt (lib.last said);
      vmagent = cd.service.serverPort settings;
      alloy = cd.service.serverPort settings;
    }
    .${settings.backend};

  # serviceOf : settings -> config -> { name, enabled, address }: the final service; those of vmagent and Alloy are not read.
  serviceOf = settings: config: {
    name = "services.${settings.backend}";
    enabled = config.services.${settings.backend}.enable;
    address =
      {
        prometheus = config.services.prometheus.listenAddress;
        victoriametrics = if endpointOf config == null then null else lib.head (endpointOf config);
        vmagent = null;
        alloy = null;
      }
      .${settings.backend};
  };

  # jobsIn : settings -> config -> [ job ] -> [ job ]: all jobs of the final configuration, with ours given.
  jobsIn =
    settings: config: ours:
    {
      prometheus = config.services.prometheus.scrapeConfigs;
      victoriametrics = config.services.victoriametrics.prometheusConfig.scrape_configs or [ ];
      vmagent = config.services.vmagent.prometheusConfig.scrape_configs or [ ];
      alloy = ours;
    }
    .${settings.backend};
}
