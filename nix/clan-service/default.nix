# The clan service `prometheus`: roles `server`, `exporter`, `front`, `agent`, `logs`, `alerting`, `dashboards` and
# `storage`. It needs only the library beside it.
#
# Everything is decided for a machine over all instances (`perMachine`): a machine has one services.prometheus, and two
# instances may declare the same exporter.
{
  config,
  lib,
  meta,
  ...
}@service:
let
  cd = import ../lib;
  view = import ./view.nix { inherit lib; };
  endpoints = import ./endpoints.nix { inherit lib cd; };
  words = import ./interface.nix { inherit cd; };
in
{
  _class = "clan.service";

  manifest = {
    name = "prometheus";
    description = "Prometheus and its exporters: the inventory declares the targets, the network knows their addresses";
    readme = builtins.readFile ./README.md;
    categories = [
      "Network"
      "System"
    ];
    exports.inputs = [
      "endpoints"
      "networking"
      "peer"
    ];
    exports.out = [ "endpoints" ];
  };

  roles.server = {
    description = "Scrapes every exporter of the clan, and every server";
    interface = words.server;
    # For everything else, see `perMachine` below.
    perInstance =
      {
        machine,
        settings,
        mkExports,
        ...
      }:
      {
        exports = mkExports {
          endpoints.hosts = endpoints.hostsOf {
            inherit (config) instances;
            inherit settings;
            domain = meta.domain or "clan";
            machine = machine.name;
          };
        };
      };
  };

  roles.exporter = {
    description = "Serves metrics of the machine or of a program on it";
    interface = words.exporter;
    perInstance = { ... }: { };
  };

  roles.front = {
    description = "Runs a reverse proxy in front of the services that the role exporter exposes";
    interface = words.front;
    perInstance = { ... }: { };
  };

  roles.agent = {
    description = "Sends the metrics of its own exporters, and its logs, to the role front: for laptops and machines that servers do not reach";
    interface = words.agent;
    perInstance = { ... }: { };
  };

  roles.logs = {
    description = "Stores the logs that agents send";
    interface = words.logs;
    perInstance = { ... }: { };
  };

  roles.alerting = {
    description = "Runs Alertmanager, to which every server sends its alerts";
    interface = words.alerting;
    perInstance = { ... }: { };
  };

  roles.dashboards = {
    description = "Runs Grafana with boards for every server and every store of logs";
    interface = words.dashboards;
    perInstance = { ... }: { };
  };

  roles.storage = {
    description = "Stores the samples that every server writes, on several machines";
    interface = words.storage;
    perInstance = { ... }: { };
  };

  perMachine =
    { machine, ... }:
    let
      common = {
        inherit cd meta;
        inherit (config) instances;
        exports = service.exports or { };
        machine = machine.name;
      };
    in
    {
      nixosModule = {
        imports = [
          (import ./agent.nix { inherit common view; })
          (import ./alerting.nix { inherit common view; })
          (import ./dashboards.nix { inherit common view; })
          (import ./exporter.nix { inherit common view; })
          (import ./front.nix { inherit common view; })
          (import ./logs.nix { inherit common view; })
          (import ./server.nix { inherit common view; })
          (import ./storage.nix { inherit common view; })
        ];
      };
      darwinModule = import ./darwin.nix { inherit common view; };
    };
}
