# `services.clan-discovery.stack.logs`: VictoriaLogs or Loki, for the logs that agents send.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkDefault mkIf;
  cd = import ../../lib;
  cfg = config.services.clan-discovery;
  inherit (cfg.stack) logs;
  inherit (logs)
    backend
    enable
    listenAddress
    port
    retention
    ;
  isVictoria = backend == "victorialogs";
  # Older versions of NixOS have no such option.
  hasVictoria = options.services ? victorialogs;
  host = if cd.service.isIpv6 listenAddress then "[${listenAddress}]" else listenAddress;
in
{
  config = lib.mkMerge [
    (lib.optionalAttrs hasVictoria {
      services.victorialogs = mkIf (enable && isVictoria) {
        enable = mkDefault true;
        listenAddress = mkDefault "${host}:${toString port}";
        extraOptions = [
          "-retentionPeriod=${retention}"
          "-enableTCP6"
          # The most that it stores. By default, it drops longer entries than 256 KiB.
          "-insert.maxLineSizeBytes=2MiB"
          "-http.maxGracefulShutdownDuration=1m"
        ];
      };
    })
    (mkIf enable {
      services.loki = mkIf (!isVictoria) {
        enable = mkDefault true;
        configuration = lib.mapAttrsRecursive (_: mkDefault) (
          import ./loki.nix {
            inherit port retention;
            address = listenAddress;
            data = config.services.loki.dataDir;
          }
        );
      };
      services.clan-discovery.expose = mkIf (!logs.isDeclared) {
        ${backend} = {
          port = mkDefault port;
          metrics = true;
          loopback = mkDefault (cd.service.isLoopback listenAddress);
        };
      };
      assertions = [
        {
          assertion = !isVictoria || hasVictoria;
          message = "services.clan-discovery.stack.logs: this NixOS has no services.victorialogs: update nixpkgs, or set `backend = \"loki\"`";
        }
      ];
    })
  ];
}
