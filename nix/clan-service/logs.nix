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
  isLoopback = common.cd.service.isLoopback listenAddress;

  ports = lib.optionals (mine != [ ] && !isLoopback) [ { inherit port settings where; } ];
  others = lib.filter (one: one.settings != settings) mine;
  differing = lib.unique (map (one: one.settings.backend) seen.stores);
in
{
  imports = [
    ../nixos
  ];

  config = lib.mkIf (mine != [ ]) {
    services.clan-discovery.stack.logs = {
      enable = mkDefault true;
      backend = mkDefault backend;
      retention = mkDefault retention;
      port = mkDefault port;
      listenAddress = mkDefault listenAddress;
      isDeclared = true;
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
      ++
        refuseIf (lib.length differing > 1)
          "${where}: the clan's stores of logs are ${lib.concatStringsSep " and " differing}, and an agent sends to one kind: set one `backend` for the role";
  };
}
