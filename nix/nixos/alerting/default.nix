# `services.clan-discovery.stack.alerting`: Alertmanager on this machine.
{ config, lib, ... }:
let
  inherit (lib)
    mkDefault
    mkIf
    mkOption
    types
    ;
  cd = import ../../lib;
  inherit (config.services.clan-discovery) front stack;
  cfg = stack.alerting;
  inherit (prometheus) alertmanager;

  host = address: if cd.service.isIpv6 address then "[${address}]" else address;
  hasPeers = cfg.peers != [ ];
  isLoopback = cd.service.isLoopback alertmanager.listenAddress;

  grafana = lib.removeSuffix "/" (toString cfg.grafanaUrl);
  hole = ''{{ define "clan.grafana" }}'';
  template = builtins.toFile "mail.tmpl" (
    lib.replaceStrings [ hole ] [ "${hole}${grafana}" ] (
      lib.readFile ../../../clan_discovery/data/mail.tmpl
    )
  );
  made = (import ./config.nix { inherit lib; }).configOf cfg [ template ];

  # The user may have a whole configuration, with receivers that are not ours.
  isReplaced = alertmanager.configText != null || alertmanager.configuration != made.configuration;
  isIgnored =
    isReplaced
    && (
      cfg.mail.to != [ ]
      || cfg.settings != { }
      || lib.any (one: one != { }) (lib.attrValues cfg.receivers)
    );

  # Whether this machine evaluates rules.
  inherit (config.services) prometheus vmalert;
  sends =
    prometheus.enable && !(prometheus.enableAgentMode or false)
    || lib.any (instance: instance.enable) (lib.attrValues vmalert.instances);

  # Without a cluster, Alertmanager would listen for one all the same.
  cluster =
    if !hasPeers then
      [ "--cluster.listen-address=" ]
    else
      [
        "--cluster.listen-address=${
          if cfg.gossipAddress != null && cd.service.isIpv6 cfg.gossipAddress then "[::]" else "0.0.0.0"
        }:${toString cfg.gossipPort}"
      ]
      ++ lib.optional (
        cfg.gossipAddress != null
      ) "--cluster.advertise-address=${host cfg.gossipAddress}:${toString cfg.gossipPort}"
      ++ map (peer: "--cluster.peer=${peer}") cfg.peers;

  # Servers send each alert again within a minute. An alert must not arrive before the one that inhibits it.
  startDelay = lib.optional (lib.versionAtLeast (lib.getVersion alertmanager.package) "0.30") "--dispatch.start-delay=90s";

  origin = "services.clan-discovery.stack.alerting";
  require = assertion: message: {
    inherit assertion;
    message = "${cfg.origin}${message}";
  };
in
{
  imports = [ ./servers.nix ];

  options.services.clan-discovery.stack.alerting.origin = mkOption {
    type = types.str;
    default = origin;
    internal = true;
    description = "Where the settings are written, for messages.";
  };

  config = lib.mkMerge [
    {
      services.clan-discovery.stack.alerting.grafanaUrl = lib.mkOverride 1400 (
        if stack.dashboards.rootUrl != null then
          stack.dashboards.rootUrl
        else if stack.dashboards.domain != null then
          "https://${stack.dashboards.domain}"
        else if stack.dashboards.enable && front.enable && front.uis.grafana.enable then
          config.services.grafana.settings.server.root_url
        else
          null
      );
    }
    (mkIf cfg.enable {
      services.prometheus.alertmanager = {
        enable = mkDefault true;
        listenAddress = mkDefault (host cfg.listenAddress);
        port = mkDefault cfg.port;
        webExternalUrl = mkIf (cfg.externalUrl != null) (mkDefault cfg.externalUrl);
        configuration = mkDefault made.configuration;
        # Servers and amtool need no path, whatever the URL is in a browser.
        extraFlags = cluster ++ startDelay ++ lib.optional (cfg.externalUrl != null) "--web.route-prefix=/";
      };
      systemd.services.alertmanager.serviceConfig.LoadCredential = made.credentials;

      # `amtool silence add` on the machine.
      environment.systemPackages = [ alertmanager.package ];
      environment.etc."amtool/config.yml".text = builtins.toJSON {
        "alertmanager.url" = "http://${
          if isLoopback then alertmanager.listenAddress else "127.0.0.1"
        }:${toString alertmanager.port}";
      };

      services.clan-discovery.expose = mkIf (cfg.origin == origin) {
        alertmanager = {
          inherit (alertmanager) port;
          metrics = true;
          loopback = isLoopback;
        };
      };

      warnings = lib.optional isIgnored "${cfg.origin}: services.prometheus.alertmanager has a configuration of its own, so that mail, receivers and settings here have no effect: write them there, or remove it";
      assertions = map (require false) (lib.optionals (!isReplaced) made.complaints) ++ [
        (require (!hasPeers || !isLoopback)
          ".listenAddress is ${alertmanager.listenAddress}, and the Alertmanagers of a cluster (peers) each need the alerts of every server: set it to an address that the servers reach"
        )
        (require (cfg.origin != origin || !isLoopback || sends)
          ": nothing sends alerts to it: it listens on ${alertmanager.listenAddress}, and this machine evaluates no alert rules: set services.clan-discovery.stack.server.enable, or set listenAddress to an address that a server reaches"
        )
      ];
    })
  ];
}
