# A machine in the role front: the reverse proxy, and the unit that gives it the fronts of the inventory, with the
# addresses that the servers use.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}@module:
let
  inherit (common) cd machine;
  inherit (lib) mkDefault;
  context = import ./context.nix { inherit common view; } module;
  inherit (context) firewall seen;
  inherit (import ./messages.nix { inherit lib; }) refuse;
  jobs = import ./jobs.nix { inherit lib cd; };

  mine = seen.on seen.fronts;
  first = (lib.head mine).settings;
  discovery = config.services.clan-discovery;
  inherit (discovery) front;
  isServer = seen.on seen.servers != [ ];
  methods = jobs.methodsOf seen.servers;
  darwin = discovery.settings.policy.darwin or "exclude";
  exports = cd.exports.reduced common.exports;
  json = pkgs.formats.json { };

  # An agent reads its own proxy.
  isAgent = seen.isAgent machine;
  ports = lib.optionals (mine != [ ] && front.metrics.enable && !isAgent) (
    map (entry: {
      inherit (entry) settings where;
      inherit (front.metrics) port;
    }) mine
  );
  isOther = entry: entry.settings != first;
  asksTailscale = lib.elem "tailscale" methods && !(config.services.tailscale.enable or false);
  receive = import ./receive.nix context (lib.head mine);
in
{
  imports = [
    ../nixos
    # A server has a config of its own, which names it.
    {
      config = lib.mkIf (mine != [ ] && !isServer) {
        services.clan-discovery = {
          enable = mkDefault true;
          mode = mkDefault (if methods == [ ] then "static" else "resident");
          jobs = cd.declared.jobsOf (
            seen
            // {
              server = null;
              inherit darwin;
            }
          );
          # This machine scrapes nothing.
          metrics.scrape = mkDefault "none";
          network = mkDefault (lib.remove "tailscale" methods != [ ]);
          settings = {
            inventory.file = mkDefault (json.generate "clan-inventory.json" (cd.declared.inventoryOf seen));
            inventory.exports = lib.mkIf (exports != { }) (
              mkDefault (json.generate "clan-exports.json" exports)
            );
            policy.darwin = mkDefault "node";
          };
        };
      };
    }
    {
      config = lib.optionalAttrs (lib.hasAttrByPath [ "clan" "core" "vars" ] options) {
        clan.core.vars.generators = lib.mkIf (mine != [ ]) receive.generators;
      };
    }
  ];

  config = lib.mkIf (mine != [ ]) {
    # The host name may be another one.
    services.clan-discovery.machine = machine;
    services.clan-discovery.front = {
      enable = mkDefault true;
      kind = mkDefault first.kind;
      domain = mkDefault first.domain;
      tls = mkDefault first.tls;
      openFirewall = mkDefault first.openFirewall;
      entryPoints = {
        http = mkDefault first.entryPoints.http;
        https = mkDefault first.entryPoints.https;
      };
      auth = {
        basic.file = mkDefault first.auth.basic.file;
        forward = {
          url = mkDefault first.auth.forward.url;
          login = mkDefault first.auth.forward.login;
          inherit (first.auth.forward) headers;
        };
        oidc.url = lib.mkIf (first.auth.oidc.url != null) (mkDefault first.auth.oidc.url);
      };
      metrics = {
        enable = mkDefault first.metrics.enable;
        port = lib.mkIf (first.metrics.port != null) (mkDefault first.metrics.port);
        # The servers are on other machines; the firewall refuses other machines.
        listenAddress = mkDefault (
          if isAgent then
            "127.0.0.1"
          else if config.networking.enableIPv6 then
            "[::]"
          else
            "0.0.0.0"
        );
        isDeclared = true;
      };
      receive = receive.receive // {
        exposed = lib.concatMap (
          entry: lib.mapAttrsToList (name: one: { inherit name; } // one) entry.settings.expose
        ) (seen.on seen.exporters);
      };
    };

    networking.firewall.interfaces = firewall.opened ports;
    warnings = lib.optional asksTailscale "clan-discovery: ${machine} runs the fronts, and the servers ask Tailscale where machines are, but services.tailscale.enable is false on ${machine}: enable it, or give the role front to a machine of the tailnet";
    assertions =
      firewall.assertions "front" ports
      ++ receive.assertions
      ++ map (
        entry:
        refuse "${entry.where} differs from ${(lib.head mine).where}, but ${machine} runs one proxy: give the role front to it in one instance"
      ) (lib.filter isOther mine);
  };
}
