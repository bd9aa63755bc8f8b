# One machine of a clan under evalModules, with stubs instead of NixOS. Settings are merged as in clan-core
# (lib/inventory/distributed-service/service-module.nix, evalMachineSettings).
{ nixpkgsLib }:
let
  lib = import nixpkgsLib;
  cd = import ../../nix/lib;
  stubs = import ./stubs.nix {
    inherit lib;
    exporters = lib.filterAttrs (_: exporter: exporter.nixos) cd.exporters;
  };
  interface = import ../../nix/clan-service/interface.nix { inherit cd; };
  view = import ../../nix/clan-service/view.nix { inherit lib; };

  settled = role: settings: {
    finalSettings = lib.evalModules {
      specialArgs.meta = { };
      modules = [ interface.${role} ] ++ lib.toList settings;
    };
  };
in
rec {
  inherit lib cd;

  # nixos : [ module ] -> config
  nixos = modules: (evaluated modules).config;
  optionsOf = modules: (evaluated modules).options;
  evaluated = modules: lib.evalModules { modules = [ stubs ] ++ modules; };

  # member : { instances.<i>.<role>.<machine> = settings or [ settings ]; machines; machine; ... } -> config
  member =
    {
      instances,
      machine,
      machines ? null,
      modules ? [ ],
      exports ? { },
      domain ? "home.arpa",
      tailscale ? true,
    }:
    let
      common = {
        inherit cd machine exports;
        meta = { inherit domain; };
        instances = lib.mapAttrs (_: roles: {
          roles = lib.mapAttrs (role: members: { machines = lib.mapAttrs (_: settled role) members; }) roles;
        }) instances;
      };
      # clan-core passes its config to each machine; `machines = null` is an older clan-core, which does not.
      shown = {
        options.clanConfig = lib.mkOption { type = lib.types.raw; };
        config.clanConfig.inventory.machines = machines;
      };
    in
    nixos (
      [
        (import ../../nix/clan-service/agent.nix { inherit common view; })
        (import ../../nix/clan-service/alerting.nix { inherit common view; })
        (import ../../nix/clan-service/dashboards.nix { inherit common view; })
        (import ../../nix/clan-service/exporter.nix { inherit common view; })
        (import ../../nix/clan-service/front.nix { inherit common view; })
        (import ../../nix/clan-service/logs.nix { inherit common view; })
        (import ../../nix/clan-service/server.nix { inherit common view; })
        (import ../../nix/clan-service/storage.nix { inherit common view; })
      ]
      ++ lib.optional (machines != null) shown
      ++ [ { services.tailscale.enable = tailscale; } ]
      ++ modules
    );

  failed =
    config:
    map (assertion: assertion.message) (lib.filter (assertion: !assertion.assertion) config.assertions);

  # Short forms for tests.
  seen = config: {
    inherit (config) warnings;
    failed = failed config;
    inherit (config.networking.firewall) interfaces allowedTCPPorts;
    jobs = map (lib.filterAttrsRecursive (
      _: value: value != null
    )) config.services.prometheus.scrapeConfigs;
    exporters = lib.filterAttrs (_: exporter: exporter.enable) config.services.prometheus.exporters;
  };
}
