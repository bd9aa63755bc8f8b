# The settings that the role `storage` and `services.clan-discovery.storage` share.
{ lib, cd }:
let
  inherit (lib) mkOption types;
  inherit (cd.storage) engines modes;
  listed = ports: lib.concatStringsSep ", " (lib.mapAttrsToList (name: port: "${name} ${toString port}") ports);
in
{
  # The default ports, for descriptions.
  writePorts = listed (lib.mapAttrs (_: engine: engine.write) engines);
  readPorts = listed (
    lib.mapAttrs (_: engine: engine.read) (lib.filterAttrs (_: engine: engine.read != engine.write) engines)
  );

  options = {
    engine = mkOption {
      type = types.enum (lib.attrNames engines);
      default = "victoriametrics";
      description = "What runs on the nodes. `remote-write`: anything that takes remote writes, which you run there.";
    };
    mode = mkOption {
      type = types.enum modes;
      default = "replicate";
      description = ''
        victoriametrics only. `replicate`: each node gets every sample. `shard`: vmagent writes each series to `replicas`
        nodes, which nothing reads as one (docs/storage.md).
      '';
    };
    replicas = mkOption {
      type = types.nullOr types.ints.positive;
      default = null;
      example = 2;
      description = "How many copies there are of each sample. Default: one for each node; 2 with `shard` and victoriametrics-cluster, 3 with thanos.";
    };
    retentionTime = mkOption {
      type = types.str;
      default = "30d";
      example = "1y";
      description = "How long the nodes keep samples.";
    };
    dedupInterval = mkOption {
      type = types.str;
      default = "1ms";
      example = "15s";
      description = "VictoriaMetrics only: of the samples of a series in this time, one is kept. Where several servers scrape a target, set it to the scrape interval.";
    };
  };
}
