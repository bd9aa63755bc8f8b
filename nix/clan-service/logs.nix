# A machine in the role logs: VictoriaLogs or Loki, for the logs that agents send.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}@module:
let
  inherit (common) machine;
  inherit (lib) mkDefault;
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf;
  inherit (import ./context.nix { inherit common view; } module) firewall seen;

  mine = seen.on seen.stores;
  member = lib.head mine;
  inherit (member) port settings where;
  inherit (settings) backend listenAddress retention;
  isVictoria = backend == "victorialogs";
  hasVictoria = options.services ? victorialogs;
  isLoopback = common.cd.service.isLoopback listenAddress;
  host = if common.cd.service.isIpv6 listenAddress then "[${listenAddress}]" else listenAddress;

  ports = lib.optionals (mine != [ ] && !isLoopback) [ { inherit port settings where; } ];
  others = lib.filter (one: one.settings != settings) mine;
  differing = lib.unique (map (one: one.settings.backend) seen.stores);
in
{
  imports = [
    ../nixos
    {
      # Older versions of NixOS have no such option.
      config = lib.optionalAttrs hasVictoria {
        services.victorialogs = lib.mkIf (mine != [ ] && isVictoria) {
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
      };
    }
  ];

  config = lib.mkIf (mine != [ ]) {
    services.loki = lib.mkIf (!isVictoria) {
      enable = mkDefault true;
      configuration = lib.mapAttrsRecursive (_: mkDefault) (
        import ./loki.nix {
          inherit port retention;
          address = listenAddress;
          data = config.services.loki.dataDir;
        }
      );
    };

    # A client that reaches it can write under any name.
    services.clan-discovery.front.receive.guarded = lib.mkIf (seen.agents != [ ]) {
      ${backend} = "set `listenAddress = \"127.0.0.1\"` in ${where}, or close the port";
    };

    networking.firewall.interfaces = firewall.opened ports;
    assertions =
      firewall.assertions "logs" ports
      ++ map (
        one:
        refuse "${one.where} differs from ${where}, but ${machine} has one store of logs: give the role logs to it in one instance"
      ) others
      ++ refuseIf (
        isVictoria && !hasVictoria
      ) "${where}: this NixOS has no services.victorialogs: update nixpkgs, or set `backend = \"loki\"`"
      ++
        refuseIf (lib.length differing > 1)
          "${where}: the clan's stores of logs are ${lib.concatStringsSep " and " differing}, and an agent sends to one kind: set one `backend` for the role";
  };
}
