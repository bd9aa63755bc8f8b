# A machine in the role dashboards: Grafana with boards for every server and every store of logs.
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
  inherit (lib) mkDefault;
  inherit (import ./messages.nix { inherit lib; }) refuse warnIf;
  inherit (import ./context.nix { inherit common view; } module) networks seen;
  inherit (import ../nixos/scraper.nix { inherit lib cd; }) own remote;
  datasource = import ../nixos/dashboards/datasources.nix { inherit lib pkgs; };

  mine = seen.on seen.dashboards;
  member = lib.head mine;
  inherit (member) settings where;
  others = lib.filter (one: one.settings != settings) mine;

  # Another instance may name the same machine: one datasource for each machine.
  each =
    members: lib.attrValues (lib.mapAttrs (_: lib.head) (lib.groupBy (one: one.machine) members));
  isHere = one: one.machine == machine;
  isAdded = one: lib.any (added: added.name or "" == one.name) settings.datasources;
  isClosedTo = one: !isHere one && cd.service.isLoopback (one.settings.listenAddress or null);

  # [ { reason; datasource; } ]: `reason` is null where this machine reaches it.
  ofServer =
    one:
    let
      found =
        if isHere one then
          own one.settings config
        else
          remote one.settings (networks.addressOf one.machine);
    in
    {
      datasource = datasource.server {
        inherit (one) machine;
        inherit (found) url;
      };
      reason =
        if isClosedTo one then
          "listens on ${one.settings.listenAddress}, where ${machine} does not reach it"
        else if found.closed then
          "asks for a password or for TLS"
        else
          null;
      inherit (one) where;
    };
  # vmagent, Alloy and Prometheus in agent mode store nothing.
  stores =
    one:
    lib.elem one.settings.backend [
      "prometheus"
      "victoriametrics"
    ]
    && (one.settings.enableAgentMode or false) != true;
  ofStore = one: {
    datasource = datasource.store {
      inherit (one) machine;
      inherit (one.settings) backend;
      url =
        if isHere one then one.url else "http://${networks.addressOf one.machine}:${toString one.port}";
      tenants = map (agent: agent.machine) (each (lib.filter seen.sendsLogs seen.agents));
    };
    reason =
      if isClosedTo one then
        "listens on ${one.settings.listenAddress}, where ${machine} does not reach it"
      else
        null;
    inherit (one) where;
  };
  # That of this machine first: Grafana shows it by default.
  ordered =
    members:
    let
      parted = lib.partition isHere (each members);
    in
    parted.right ++ parted.wrong;
  storage = config.services.clan-discovery.storage.url;
  found =
    # What has the samples of every server is the default.
    lib.optional (storage != null) {
      datasource = datasource.storage storage;
      reason = null;
      inherit where;
    }
    ++ map ofServer (ordered (lib.filter stores seen.servers)) ++ map ofStore (ordered seen.stores);

  hasVars = lib.hasAttrByPath [ "clan" "core" "vars" ] options;
  generator = "prometheus-grafana";
  usesVars = settings.adminPasswordFile == null || settings.secretKeyFile == null;
  asksSecret = settings.oidc.enable && settings.oidc.clientSecretFile == null;
  fileOf = of: name: config.clan.core.vars.generators.${of}.files.${name}.path;
  file =
    said: of: name:
    mkDefault (if said == null && hasVars then fileOf of name else said);

  # The module system reads the names before it knows whether the machine has the role.
  of =
    path: names: lib.genAttrs names (name: mkDefault (lib.getAttrFromPath (path ++ [ name ]) settings));
  oidcWords = [
    "apiUrl"
    "authUrl"
    "clientId"
    "enable"
    "name"
    "scopes"
    "settings"
    "tokenUrl"
  ];
in
{
  imports = [
    ../nixos
    {
      config = lib.optionalAttrs hasVars {
        clan.core.vars.generators = lib.mkIf (mine != [ ]) {
          ${generator} = lib.mkIf usesVars {
            files = lib.genAttrs [ "admin-password" "secret-key" ] (_: {
              restartUnits = [ "grafana.service" ];
            });
            runtimeInputs = [ pkgs.openssl ];
            script = ''
              openssl rand -hex 16 > "$out/admin-password"
              openssl rand -hex 32 > "$out/secret-key"
            '';
          };
          "${generator}-oidc" = lib.mkIf asksSecret {
            prompts.client-secret = {
              type = "hidden";
              description = "The secret of Grafana's client at the OpenID Connect provider";
            };
            files.client-secret.restartUnits = [ "grafana.service" ];
            runtimeInputs = [ pkgs.coreutils ];
            script = ''tr -d '\n' < "$prompts/client-secret" > "$out/client-secret"'';
          };
        };
      };
    }
  ];

  config = lib.mkIf (mine != [ ]) {
    services.clan-discovery.machine = machine;
    services.clan-discovery.stack.dashboards = {
      enable = mkDefault true;
      isDeclared = true;
      found = mkDefault (map (one: one.datasource) (lib.filter (one: one.reason == null) found));
      inherit (settings) datasources;
      adminPasswordFile = file settings.adminPasswordFile generator "admin-password";
      secretKeyFile = file settings.secretKeyFile generator "secret-key";
      oidc = of [ "oidc" ] oidcWords // {
        clientSecretFile =
          if asksSecret then
            file null "${generator}-oidc" "client-secret"
          else
            mkDefault settings.oidc.clientSecretFile;
      };
      database = of [ "database" ] [ "socket" "type" ];
    }
    // of [ ] [ "domain" "port" "rootUrl" "statusPage" ];

    warnings = lib.concatMap (
      one:
      warnIf (one.reason != null && !isAdded one.datasource)
        "${where}: Grafana has no datasource for ${one.where}, which ${one.reason}: give the role dashboards to its machine, or let it listen on the clan's network, or add a datasource named '${one.datasource.name}' to `datasources`"
    ) found;
    assertions = map (
      one:
      refuse "${one.where} differs from ${where}, but ${machine} has one Grafana: give the role dashboards to it in one instance"
    ) others;
  };
}
