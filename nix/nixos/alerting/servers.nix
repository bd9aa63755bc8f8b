# The programs of this machine that evaluate rules send alerts to Alertmanager: Prometheus; or vmalert, for VictoriaMetrics
# and for the nodes that vmagent writes to.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib)
    mkDefault
    mkIf
    mkOption
    types
    ;
  cd = import ../../lib;
  cfg = config.services.clan-discovery;
  inherit (cfg.alerts) alertmanagers;
  inherit (cfg) storage;
  inherit (cfg.stack) alerting;
  inherit (config.services)
    prometheus
    victoriametrics
    vmagent
    vmalert
    ;
  inherit (import ../scraper.nix { inherit lib cd; }) own;

  name = "clan-discovery";
  # vmalert refuses to start with these and a URL.
  takesUrls =
    settings: !(settings ? "notifier.config") && (settings."notifier.blackhole" or false) != true;
  isPrometheus = prometheus.enable && !(prometheus.enableAgentMode or false);
  scrapesOurs =
    jobs:
    lib.intersectLists (map (job: job.job_name) cfg.scrapeConfigs) (
      map (job: job.job_name or null) jobs
    ) != [ ];
  # A Prometheus that has the targets evaluates the rules (alerts.nix). The user may have one for something else.
  scrapes = {
    prometheus =
      isPrometheus && scrapesOurs (lib.concatLists options.services.prometheus.scrapeConfigs.definitions);
    victoriametrics = scrapesOurs (victoriametrics.prometheusConfig.scrape_configs or [ ]);
    vmagent = vmagent.enable && scrapesOurs (vmagent.prometheusConfig.scrape_configs or [ ]);
  };
  isBeside =
    if cfg.stack.server.enable then
      cfg.stack.server.backend == "victoriametrics"
    else
      !scrapes.prometheus && scrapes.victoriametrics;
  # vmagent evaluates no rules. The VictoriaMetrics of this machine may be one of the nodes that it writes to.
  isVmagent = scrapes.vmagent && !scrapes.prometheus && !scrapes.victoriametrics;
  usesStorage = isVmagent && storage.writes && storage.url != null;
  isUnread = isVmagent && storage.writes && storage.url == null;
  isVictoria = usesStorage || victoriametrics.enable && (!isPrometheus || isBeside);
  store =
    if usesStorage then
      {
        inherit (storage) url;
        closed = false;
      }
    else
      own { backend = "victoriametrics"; } config;
  # vmagent writes to every node. Thanos would refuse the series of a second server, which differ in their values alone.
  written =
    if !usesStorage then
      store.url
    else if storage.engine == "thanos" || agent.closed then
      null
    else
      agent.url;
  agent = own { backend = "vmagent"; } config;
  hasOther = lib.any (instance: instance.enable && takesUrls instance.settings) (
    lib.attrValues (removeAttrs vmalert.instances [ name ])
  );
  evaluates = lib.any (instance: instance.enable) (lib.attrValues vmalert.instances);
  hasOwn = isVictoria && alertmanagers != [ ] && !store.closed;
  listens = "127.0.0.1:8880";
in
{
  options.services.clan-discovery.alerts.alertmanagers = mkOption {
    type = types.listOf types.str;
    default =
      let
        inherit (prometheus) alertmanager;
        host =
          if cd.service.isLoopback alertmanager.listenAddress then
            alertmanager.listenAddress
          else
            "127.0.0.1";
      in
      lib.optional alerting.enable "${host}:${toString alertmanager.port}";
    defaultText = lib.literalMD "the Alertmanager of this machine, if `stack.alerting` is enabled";
    example = [ "alerts.example.org:9093" ];
    description = ''
      The Alertmanagers that get the alerts of this machine's Prometheus, or of a vmalert beside its VictoriaMetrics or
      vmagent.
    '';
  };

  # More of the option of nixpkgs: an instance of the user's has the rules, too (alerts.nix), so it sends as ours does.
  options.services.vmalert.instances = mkOption {
    type = types.attrsOf (
      types.submodule (
        { config, ... }:
        {
          config.settings."notifier.url" = mkIf (
            isVictoria && alertmanagers != [ ] && takesUrls config.settings
          ) (map (address: "http://${address}") alertmanagers);
        }
      )
    );
  };

  config = {
    services.prometheus.alertmanagers = mkIf (isPrometheus && alertmanagers != [ ]) [
      { static_configs = [ { targets = alertmanagers; } ]; }
    ];

    # With the default of ten minutes, an alert that waits for less begins anew after a restart. Alertmanager would take it
    # as resolved meanwhile.
    services.prometheus.extraFlags = mkIf (isPrometheus && alertmanagers != [ ]) [
      "--rules.alert.for-grace-period=1m"
    ];

    services.vmalert.instances = mkIf hasOwn {
      ${name} = {
        # One of the user's has the rules, too (alerts.nix).
        enable = mkDefault (!hasOther);
        settings = {
          "datasource.url" = mkDefault store.url;
          # The state of alerts, so that a restart does not begin anew, and the recording rules.
          "remoteWrite.url" = mkIf (written != null) (mkDefault written);
          "remoteRead.url" = mkIf (written != null) (mkDefault store.url);
          httpListenAddr = mkDefault listens;
          # The same alert of a Prometheus has no such label: Alertmanager would tell of it twice.
          disableAlertgroupLabel = mkDefault true;
        };
        rules.groups = mkDefault [ ];
      };
    };

    # In a clan, the inventory declares it.
    services.clan-discovery.expose = mkIf (cfg.stack.server.enable && hasOwn && !hasOther) {
      vmalert = {
        port = lib.toInt (lib.last (lib.splitString ":" vmalert.instances.${name}.settings.httpListenAddr));
        metrics = true;
        loopback = true;
      };
    };

    assertions =
      let
        refuseIf =
          condition: message:
          lib.optional condition {
            assertion = false;
            inherit message;
          };
      in
      refuseIf (isVictoria && alertmanagers != [ ] && store.closed && !hasOther)
        "services.clan-discovery.alerts.alertmanagers: ${store.why}, so that no vmalert evaluates the rules: add an instance to services.vmalert.instances, with its user and password"
      ++ refuseIf (
        cfg.enable && cfg.mode == "static" && alertmanagers != [ ]
      ) "services.clan-discovery.mode is \"static\", which has no alerts: set it to \"resident\"";

    warnings =
      lib.optional
        (isUnread && cfg.alerts.enable && alertmanagers != [ ] && !evaluates)
        "services.clan-discovery.alerts: this machine evaluates no alert rule, because vmagent evaluates none, and nothing here reads the nodes of the storage as one: set another engine or mode (docs/storage.md), or add an instance to services.vmalert.instances";
  };
}
