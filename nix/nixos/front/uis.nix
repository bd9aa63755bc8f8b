# The web interfaces of the stack on this machine: where each listens, and its front.
{
  lib,
  config,
  cd,
}:
let
  inherit (config) services;
  inherit (services.clan-discovery) front settings;
  uis = lib.filterAttrs (_: ui: ui.enable) front.uis;
  # Stronger than the defaults of a clan service, weaker than a definition of the machine.
  listens = lib.mkIf front.enable (lib.mkOverride 950 "127.0.0.1");
  portIn = address: if cd.splitAddress address == null then null else (cd.splitAddress address).port;
  hostIn = address: lib.concatStringsSep ":" (lib.init (lib.splitString ":" address));

  # of.<ui> : { option, enabled, address, port }
  of = {
    alertmanager = {
      option = "services.prometheus.alertmanager.enable";
      enabled = services.prometheus.alertmanager.enable;
      address = services.prometheus.alertmanager.listenAddress;
      inherit (services.prometheus.alertmanager) port;
    };
    grafana = {
      option = "services.grafana.enable";
      enabled = services.grafana.enable;
      address = services.grafana.settings.server.http_addr;
      port = services.grafana.settings.server.http_port;
    };
    prometheus = {
      option = "services.prometheus.enable";
      enabled = services.prometheus.enable;
      address = services.prometheus.listenAddress;
      inherit (services.prometheus) port;
    };
    status = {
      option = "services.clan-discovery.settings.web";
      enabled = settings.web != null;
      # Without it, an assertion fails.
      address = if settings.web == null then "127.0.0.1" else hostIn settings.web.listen;
      port = if settings.web == null then 9942 else portIn settings.web.listen;
    };
    victoriametrics = {
      option = "services.victoriametrics.enable";
      enabled = services.victoriametrics.enable;
      address = hostIn services.victoriametrics.listenAddress;
      port = lib.toInt (lib.last (lib.splitString ":" services.victoriametrics.listenAddress));
    };
  };
in
{
  complaints = lib.concatMap (
    name:
    lib.optional (
      !of.${name}.enabled
    ) "front.uis.${name} is enabled, but ${of.${name}.option} is not set: set it, or remove the front"
  ) (lib.attrNames uis);

  # Which UIs there are must not depend on `settings`: they become a part of it.
  expose = lib.mapAttrs (name: ui: {
    port = lib.mkDefault of.${name}.port;
    metrics = lib.mkDefault false;
    # A proxy on another machine would not reach it.
    loopback = lib.mkDefault (front.enable || cd.service.isLoopback of.${name}.address);
    front = {
      inherit (ui) domain auth;
      # On loopback, the status page answers for no other host.
      headers = lib.mkIf (name == "status") { Host = "localhost"; };
    };
  }) uis;

  services = {
    prometheus.alertmanager = lib.mkIf (uis ? alertmanager) { listenAddress = listens; };
    prometheus.listenAddress = lib.mkIf (uis ? prometheus) listens;
    grafana.settings.server = lib.mkIf (uis ? grafana) { http_addr = listens; };
    victoriametrics.listenAddress = lib.mkIf (uis ? victoriametrics && front.enable) (
      lib.mkOverride 950 "127.0.0.1:8428"
    );
  };
}
