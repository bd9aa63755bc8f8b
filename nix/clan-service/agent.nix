# A machine in the role agent: it reads its own exporters and sends their metrics, and its logs, to a machine that
# receives.
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
  inherit (import ./context.nix { inherit common view; } module) seen;
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf;
  tokens = import ./tokens.nix { inherit pkgs; };
  json = pkgs.formats.json { };

  mine = seen.on seen.agents;
  member = lib.head mine;
  first = member.settings;

  hasVars = lib.hasAttrByPath [ "clan" "core" "vars" ] options;
  usesVars = first.token.file == null && hasVars;

  inherit (config.services.clan-discovery.agent) logs;
  sendsLogs = seen.sendsLogs member;
  store = lib.findFirst (_: true) { settings = { }; } seen.stores;

  # What this machine serves: [ { type; port; where; } ]
  exporters = map (entry: { inherit (entry) type port where; }) (
    lib.filter (entry: !entry.exporter.idle) (seen.entriesOf (seen.on seen.exporters))
  );
  exposed = lib.concatMap (
    { settings, where, ... }:
    map (name: {
      type = cd.exposed.typeOf name settings.expose.${name};
      inherit (settings.expose.${name}) port;
      where = "${where}.expose.${name}";
    }) (lib.filter (name: settings.expose.${name}.metrics or true) (lib.attrNames settings.expose))
  ) (seen.on seen.exporters);
  fronts = lib.optional (
    seen.on seen.fronts != [ ] && config.services.clan-discovery.front.metrics.enable
  ) config.services.clan-discovery.front.kind;
  # The receiver gives both the same `job` and `instance`.
  alike = lib.filterAttrs (
    _: entries: lib.length (lib.unique (map (entry: entry.port) entries)) > 1
  ) (lib.groupBy (entry: entry.type) (exporters ++ exposed));

  # Of the servers' `jobs`, what does not depend on where the exporter is read.
  jobs = lib.mapAttrs (
    _:
    lib.intersectAttrs (
      lib.genAttrs [
        "honor_labels"
        "honor_timestamps"
        "metric_relabel_configs"
        "relabel_configs"
        "sample_limit"
        "scrape_interval"
        "scrape_timeout"
      ] (_: null)
    )
  ) (lib.zipAttrsWith (_: lib.head) (map (server: server.settings.jobs) seen.servers));
in
{
  imports = [
    ../nixos
    {
      config = lib.mkIf (mine != [ ] && usesVars) (
        lib.optionalAttrs hasVars {
          clan.core.vars.generators = tokens.generator {
            inherit machine;
            inherit (first.token) generation;
            restartUnits = [
              "clan-discovery-agent.service"
            ]
            ++ lib.optional logs.enable (
              if logs.backend == "loki" then "alloy.service" else "clan-discovery-logs.service"
            );
          };
          services.clan-discovery.agent.tokenFile = mkDefault (
            tokens.fileOf config machine first.token.generation
          );
        }
      );
    }
  ];

  config = lib.mkIf (mine != [ ]) {
    services.clan-discovery = {
      # The host name may be another one.
      inherit machine;
      agent = {
        enable = mkDefault true;
        urls = mkDefault (if first.urls != [ ] then first.urls else map (front: front.url) seen.receivers);
        caFile = mkDefault first.caFile;
        tokenFile = lib.mkIf (!usesVars) (mkDefault first.token.file);
        queue.maxDiskUsage = mkDefault first.queue.maxDiskUsage;
        scrapeInterval = mkDefault first.scrapeInterval;
        logs = {
          enable = mkDefault sendsLogs;
          backend = mkDefault (store.settings.backend or "victorialogs");
          retention = mkDefault (store.settings.retention or "30d");
          maxDiskUsage = mkDefault first.logs.maxDiskUsage;
        };
        jobs = map (entry: entry.type) (exporters ++ exposed) ++ fronts;
        scrape = jobs;
        inventory = json.generate "clan-inventory.json" (cd.declared.inventoryOf seen);
      };
    };

    assertions =
      map (
        entry:
        refuse "${entry.where} differs from ${member.where}, but ${machine} has one agent: give the role agent to it in one instance"
      ) (lib.filter (entry: entry.settings != first) mine)
      ++
        refuseIf (first.urls == [ ] && seen.receivers == [ ])
          "${member.where}: no machine receives what ${machine} sends: give the role front to a machine beside a VictoriaMetrics, or set `urls`"
      ++ refuseIf (
        first.token.file == null && !hasVars
      ) "${member.where}.token.file: this clan-core has no vars: set the path of a file with the token"
      ++ lib.mapAttrsToList (
        type: entries:
        refuse "${machine}: ${
          lib.concatMapStringsSep " and " (entry: "${entry.where} (port ${toString entry.port})") entries
        } have the type ${type}, and the receiver gives all metrics of ${machine} one `instance`: set another `type`, or remove one"
      ) alike;
  };
}
