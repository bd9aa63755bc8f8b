# A clan with our service, evaluated by clan-core: two instances of it, two servers, exporters by tag, by name and
# several on one machine, a darwin machine, and an overlay network that exports addresses.
#
#   nix-instantiate --eval --strict --json --store dummy:// -E \
#     'import ./service.nix { nixpkgsLib = "..."; clanCore = "..."; directory = "..."; server = { ... }; }'
{
  nixpkgsLib,
  clanCore,
  directory,
  # settings of the roles; a path of settings is defined once in clan-core, so that a test gives the whole
  server ? { },
  exporter ? { },
  systemd ? { },
  # more of the inventory
  inventory ? { },
  # whether it is an inventory of today's service, which has one exporter for each member
  documented ? false,
  # the `module.input` of the instances: a flake input, or "self" for the clan's own copy of the same service
  input ? "clan-discovery",
  service ? ../../nix/clan-service,
  # whether to return the clan itself, as a flake does
  whole ? false,
}:
let
  lib = import nixpkgsLib;
  clanLib = import ./clan-core.nix { inherit lib clanCore; };
  t = import ./machine.nix { inherit nixpkgsLib; };

  # An overlay like clan-core's: a priority for the instance, a host for each machine. One host is not generated yet.
  overlay = _: {
    _class = "clan.service";
    manifest.name = "overlay";
    manifest.readme = "test";
    manifest.exports.out = [
      "networking"
      "peer"
    ];
    roles.peer.description = "peer";
    roles.peer.interface =
      { lib, ... }:
      {
        options.host = lib.mkOption {
          type = lib.types.str;
          default = "";
        };
      };
    roles.peer.perInstance =
      {
        settings,
        mkExports,
        machine,
        ...
      }:
      {
        exports = mkExports {
          peer.hosts = [
            {
              plain =
                if settings.host == "" then throw "not generated: ${machine.name}" else settings.host + "\n";
            }
          ];
        };
      };
  };

  clan = clanLib.clan {
    # A flake with `clan.modules`, as `module.input` of another clan; it does not depend on clan-core.
    self.inputs.clan-discovery.clan.modules.prometheus = service;
    inherit directory;
    meta.name = "demo";
    meta.domain = "home.arpa";
    modules = {
      inherit overlay;
      prometheus = service;
    };
    inventory = lib.mkMerge [
      {
        machines.monitor.tags = [ "scrapes" ];
        machines.backup.tags = [ "scrapes" ];
        machines.db.tags = [ "edge-1" ];
        machines.web = { };
        machines.mac.machineClass = "darwin";
        instances.monitoring = {
          module = {
            name = "prometheus";
            inherit input;
          };
          roles.server.tags.scrapes = { };
          roles.server.settings = server;
          roles.exporter.tags.nixos = { };
          roles.exporter.settings = exporter;
          roles.exporter.machines.db.settings = lib.optionalAttrs (!documented) {
            exporterType = "node";
            exporters.postgres.port = 9188;
          };
          roles.exporter.machines.web.settings = lib.optionalAttrs (!documented) {
            exporters = {
              node.enabledCollectors = [ "systemd" ];
              blackbox.target = "https://example.org";
            };
            labels.site = "home";
          };
        };
        instances.systemd = {
          module = {
            name = "prometheus";
            inherit input;
          };
          roles.exporter.tags.edge-1 = { };
          roles.exporter.settings = {
            exporterType = "systemd";
          }
          // systemd;
        };
        instances.wg = {
          module.name = "overlay";
          module.input = "self";
          roles.peer.machines = {
            db.settings.host = "fd00::5";
            web.settings.host = "web.wg";
            backup = { };
          };
        };
      }
      inventory
    ];
  };
  configOf =
    name:
    (lib.evalModules {
      class = "nixos";
      modules = [
        (import ./stubs.nix {
          inherit lib;
          exporters = lib.filterAttrs (_: exporter: exporter.nixos) t.cd.exporters;
        })
        {
          options.clan.core.settings = lib.mkOption { type = lib.types.anything; };
          options.networking.hostName = lib.mkOption { type = lib.types.str; };
        }
        { services.tailscale.enable = true; }
        clan.config.outputs.moduleForMachine.${name}
      ];
    }).config;
  names = lib.filter (name: name != "mac") (lib.attrNames clan.config.inventory.machines);
  configs = lib.genAttrs names configOf;
in
lib.optionalAttrs whole {
  inherit (clan.config) clanInternals;
  clan = clan.config;
}
// lib.optionalAttrs (!whole) {
  machines = lib.mapAttrs (_: t.seen) configs;
  units = lib.mapAttrs (_: config: lib.attrNames (config.systemd.services or { })) configs;
  rendered = lib.mapAttrs (
    _: config:
    let
      discovery = config.services.clan-discovery;
    in
    lib.optionalAttrs discovery.enable {
      inherit (discovery)
        settings
        mode
        network
        jobs
        ;
    }
  ) configs;
  victoriametrics = lib.mapAttrs (
    _: config: config.services.victoriametrics.prometheusConfig
  ) configs;
  vmagent = lib.mapAttrs (_: config: config.services.vmagent) configs;
  inventory = clan.config.clanInternals.inventoryClass.inventorySerialization;
  settings = lib.mapAttrs (
    _: s:
    lib.mapAttrs (
      _: i: lib.mapAttrs (_: r: lib.mapAttrs (_: m: m.finalSettings.config) (r.machines or { })) i.roles
    ) s.instances
  ) clan.config._services.allServices;
  exports = lib.mapAttrs (
    _: value:
    let
      safe =
        x:
        let
          tried = builtins.tryEval (builtins.deepSeq x x);
        in
        if tried.success then tried.value else null;
    in
    {
      peer = safe (value.peer or null);
      networking = safe (value.networking or null);
    }
  ) clan.config.exports;
  # clan-core's results for the service itself: its interfaces as JSON schemas, and its checks.
  schemas = lib.mapAttrs (_: s: lib.attrNames s.result.api.schema) clan.config._services.allServices;
  checks = clan.config.clanInternals.cliChecks;
}
