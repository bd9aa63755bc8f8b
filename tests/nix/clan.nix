# The inventory of the service's documentation with overrides, a typo and a darwin machine, evaluated by real clan-core
# without flakes, network or daemon: its serialised form, the merged settings, and its exports. `merged` and `exported`
# are the functions that `dump` applies.
#
#   nix-instantiate --eval --strict --json --store dummy:// \
#     -E 'import ./clan.nix { nixpkgsLib = "..."; clanCore = "..."; directory = "..."; merged = ...; exported = ...; }'
{
  nixpkgsLib,
  clanCore,
  directory,
  merged,
  exported,
}:
let
  lib = import nixpkgsLib;
  clanLib = import ./clan-core.nix { inherit lib clanCore; };
  prometheus = { lib, ... }: {
    _class = "clan.service";
    manifest.name = "prometheus";
    manifest.readme = "test";
    roles.server.description = "server";
    roles.server.interface = {
      freeformType = lib.types.attrsOf lib.types.anything;
      options.additionalScrapeConfigs = lib.mkOption {
        type = lib.types.listOf lib.types.anything;
        default = [ ];
      };
      options.rules = lib.mkOption {
        type = lib.types.listOf lib.types.anything;
        default = [ ];
      };
    };
    roles.exporter.description = "exporter";
    roles.exporter.interface = {
      freeformType = lib.types.attrsOf lib.types.anything;
      options.enabledCollectors = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
      };
      options.port = lib.mkOption {
        type = lib.types.nullOr lib.types.port;
        default = null;
      };
    };
    roles.server.perInstance = { ... }: { nixosModule = { }; };
    roles.exporter.perInstance = { ... }: { nixosModule = { }; };
  };
  clan = clanLib.clan {
    self = {
      inputs = { };
    };
    inherit directory;
    meta.name = "demo";
    meta.domain = "home.arpa";
    modules.prometheus = prometheus;
    inventory = {
      machines.monitor.tags = [
        "monitoring-server"
        "server"
      ];
      machines.db.tags = [ "server" ];
      machines.laptop = { };
      machines.mac.machineClass = "darwin";
      tags.extra = [ "db" ];
      instances.monitoring = {
        module.name = "prometheus";
        module.input = "self";
        roles.server = {
          tags."monitoring-server" = { };
          settings = {
            enableAutoDiscovery = true;
            discoveryMethod = "tailscale";
            port = 9090;
            retentionTime = "30d";
            rules = [ ];
            additionalScrapeConfigs = [
              {
                job_name = "external-service";
                static_configs = [ { targets = [ "api.example.com:9090" ]; } ];
              }
            ];
          };
        };
        roles.exporter = {
          tags."all" = { };
          tags.extra.settings.scrapeTier = "gold";
          machines.db.settings.port = lib.mkForce 9200;
          machines.db.settings.enabledCollectors = lib.mkIf true [ "zfs" ];
          settings = {
            exporterType = "node";
            port = 9100;
            enabledCollectors = [
              "systemd"
              "cpu"
              "memory"
              "disk"
              "network"
            ];
          };
        };
      };
      instances.systemd = {
        module.name = "prometheus";
        module.input = "self";
        roles.exporter = {
          tags.nixos = { };
          settings.exporterType = lib.mkDefault "systemd";
          machines.wep = { };
        };
      };
    };
  };
in
{
  inventory = clan.config.clanInternals.inventoryClass.inventorySerialization;
  settings = merged clan.config._services.allServices;
  exports = exported clan.config.exports;
}
