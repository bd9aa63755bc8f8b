# A machine in the role alerting: Alertmanager, to which every server sends its alerts. And the Alertmanagers of a server.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}@module:
let
  inherit (common) cd machine;
  inherit (lib) mkDefault mkIf;
  inherit (import ./context.nix { inherit common view; } module) firewall networks seen;
  inherit (seen) machinesOf;
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf;
  shared = import ./common.nix { inherit lib cd; };

  mine = seen.on seen.alerting;
  member = lib.head mine;
  inherit (member) settings where;
  inherit (config.services.prometheus) alertmanager;
  isLoopback = cd.service.isLoopback alertmanager.listenAddress;

  servers = lib.filter seen.evaluates seen.servers;
  beyond = lib.remove machine (machinesOf servers);
  # A machine may have the role in two instances.
  others = map (name: lib.findFirst (one: one.machine == name) null seen.alerting) (
    lib.remove machine (machinesOf seen.alerting)
  );
  addressOf = one: port: "${networks.addressOf one.machine}:${toString port}";
  here = if isLoopback then alertmanager.listenAddress else "127.0.0.1";

  # Alertmanager takes no name.
  isIp = host: cd.service.isIpv6 host || builtins.match "[0-9]+(\\.[0-9]+){3}" host != null;
  ownAddresses = lib.filter isIp (lib.optional (networks.own != null) networks.own.host);
  urls = lib.filter (url: url != null) (
    map (
      { settings, ... }:
      if settings.rootUrl != null || settings.domain == null then
        settings.rootUrl
      else
        "https://${settings.domain}"
    ) seen.dashboards
  );

  hasVars = lib.hasAttrByPath [ "clan" "core" "vars" ] options;
  usesVars = hasVars && settings.mail.username != null && settings.mail.passwordFile == null;
  generator = "alertmanager-mail";

  ports = lib.optionals (!isLoopback) (
    [
      {
        inherit (alertmanager) port;
        inherit settings where;
      }
    ]
    ++ lib.optional (others != [ ]) {
      port = settings.gossipPort;
      udp = true;
      inherit settings where;
    }
  );
in
{
  imports = [
    ../nixos
    {
      # Older versions of clan-core have no vars.
      config = mkIf (mine != [ ] && usesVars) (
        lib.optionalAttrs hasVars {
          clan.core.vars.generators.${generator} = {
            # The others of the role have the same account.
            share = true;
            prompts.password = {
              type = "hidden";
              description = "Password of ${settings.mail.username} at ${toString settings.mail.smarthost}, for mail about alerts";
            };
            files.password.restartUnits = [ "alertmanager.service" ];
            runtimeInputs = [ pkgs.coreutils ];
            script = ''
              tr -d '\n' < "$prompts/password" > "$out/password"
            '';
          };
          services.clan-discovery.stack.alerting.mail.passwordFile =
            mkDefault
              config.clan.core.vars.generators.${generator}.files.password.path;
        }
      );
    }
    {
      config = mkIf (seen.on seen.servers != [ ] && seen.alerting != [ ]) {
        services.clan-discovery.alerts.alertmanagers =
          lib.optional (mine != [ ]) "${here}:${toString alertmanager.port}"
          ++ map (one: addressOf one one.settings.port) others;
      };
    }
  ];

  config = mkIf (mine != [ ]) {
    services.clan-discovery.stack.alerting = lib.mkMerge [
      {
        enable = mkDefault true;
        origin = where;
        # The following are not those of the machine alone.
        peers = lib.optionals (settings.peers == [ ]) (
          map (one: addressOf one one.settings.gossipPort) others
        );
        gossipAddress = mkIf (ownAddresses != [ ]) (lib.mkOverride 1100 (lib.head ownAddresses));
        grafanaUrl = mkIf (urls != [ ]) (lib.mkOverride 1100 (lib.head urls));
      }
      # The names of options are read on every machine.
      (lib.optionalAttrs (mine != [ ]) (
        shared.handed options.services.clan-discovery.stack.alerting (
          lib.filterAttrsRecursive (_: value: value != null) (
            removeAttrs settings [
              "firewallInterfaces"
              "listenAddress"
            ]
          )
        )
      ))
    ];
    # Stronger than that of a front, whose proxy reaches it all the same.
    services.prometheus.alertmanager.listenAddress = lib.mkOverride 940 (
      if settings.listenAddress != null then
        if cd.service.isIpv6 settings.listenAddress then
          "[${settings.listenAddress}]"
        else
          settings.listenAddress
      else if beyond == [ ] && others == [ ] then
        "127.0.0.1"
      else
        ""
    );

    networking.firewall.interfaces = firewall.opened ports;
    assertions =
      firewall.assertions "alerting" ports
      ++ map (
        one:
        refuse "${one.where} differs from ${where}, but ${machine} has one Alertmanager: give the role alerting to it in one instance"
      ) (lib.filter (one: one.settings != settings) mine)
      ++
        refuseIf (servers == [ ])
          "${where}: no server evaluates alert rules: give the role server to a machine, with the backend prometheus or victoriametrics, or vmagent and a storage that is read as one"
      ++
        refuseIf (isLoopback && beyond != [ ] && others == [ ])
          "${where}: Alertmanager listens on ${alertmanager.listenAddress}, where ${lib.concatStringsSep ", " beyond} cannot reach it: remove listenAddress, or set another one";
  };
}
