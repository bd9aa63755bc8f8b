# The clan service `prometheus`: roles `server` and `exporter`, a drop-in for the one that clans use today. It depends on
# nothing but the library beside it; clan-core calls it.
#
# Whatever a machine gets is decided once for the machine, over all instances (`perMachine`): services.prometheus is one
# per machine, and two instances may give the same exporter.
{
  config,
  lib,
  meta,
  ...
}@service:
let
  cd = import ../lib;
  view = import ./view.nix { inherit lib; };
  words = import ./interface.nix { inherit cd; };
in
{
  _class = "clan.service";

  manifest = {
    name = "prometheus";
    description = "Prometheus and its exporters: the inventory says what is scraped, the network where it is";
    readme = builtins.readFile ./README.md;
    categories = [
      "Network"
      "System"
    ];
    exports.inputs = [
      "networking"
      "peer"
    ];
  };

  roles.server = {
    description = "Scrapes every exporter of the clan, and every server";
    interface = words.server;
    # Decided per machine, below; an instance adds nothing of its own.
    perInstance = { ... }: { };
  };

  roles.exporter = {
    description = "Serves metrics: of the machine, or of a program on it";
    interface = words.exporter;
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
          (import ./exporter.nix { inherit common view; })
          (import ./server.nix { inherit common view; })
        ];
      };
      darwinModule = import ./darwin.nix { inherit common; };
    };
}
