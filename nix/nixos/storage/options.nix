# The options of `services.clan-discovery.storage`.
{
  lib,
  cd,
  config,
}:
let
  inherit (lib) mkOption types;
  own = config.services.clan-discovery.storage;
  known = cd.storage.engines.${own.engine};
  words = import ./words.nix { inherit lib cd; };
in
words.options
// {
  nodes = mkOption {
    type = types.attrsOf (
      types.submodule (
        { name, config, ... }:
        {
          options = {
            host = mkOption {
              type = types.str;
              default = name;
              description = "Its address or name.";
            };
            port = mkOption {
              type = types.port;
              default = known.write;
              defaultText = lib.literalMD words.writePorts;
              description = "The port that takes writes.";
            };
            readPort = mkOption {
              type = types.port;
              default = if known.read == known.write then config.port else known.read;
              defaultText = lib.literalMD "`port`; ${words.readPorts}";
              description = "The port that queries are sent to.";
            };
          };
        }
      )
    );
    default = { };
    example = {
      db1.host = "10.0.0.11";
      db2.host = "10.0.0.12";
    };
    description = "The nodes that store samples, by name. In a clan: the machines in the role storage.";
  };

  node = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = "db1";
    description = "The node that this machine is. It runs the store.";
  };
  listenAddress = mkOption {
    type = types.str;
    default = "";
    example = "10.0.0.11";
    description = "The address on which the store listens. Default: every address.";
  };

  writes = mkOption {
    type = types.bool;
    default = false;
    description = "Whether the Prometheus or vmagent of this machine writes to the nodes.";
  };
  reads = mkOption {
    type = types.bool;
    default = false;
    description = "Whether this machine reads the nodes as one, on loopback: with vmauth, vmselect or Thanos's query.";
  };
  url = mkOption {
    type = types.nullOr types.str;
    readOnly = true;
    description = "Where Grafana on this machine reads the nodes as one; null if nothing does.";
  };
  scrapedTwice = mkOption {
    type = types.bool;
    default = false;
    description = "Whether several servers scrape one target.";
  };
  proxyPort = mkOption {
    type = types.port;
    default =
      let
        inherit (config.services.clan-discovery.front) receive;
        inherit (cd.storage.engines.thanos.writer) port;
      in
      if receive.enable && receive.port == port then 8425 else port;
    defaultText = lib.literalMD "8427; 8425 if a receiver of agents has that port";
    description = "The port of vmauth on loopback.";
  };
  clusterPackage = mkOption {
    type = types.nullOr types.package;
    default = null;
    description = "VictoriaMetrics with the programs of its cluster version (vmstorage, vminsert, vmselect), which nixpkgs does not have.";
  };
}
