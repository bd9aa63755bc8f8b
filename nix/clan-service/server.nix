# A machine in the role server: its jobs, the unit that updates their target files, and its port.
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
  jobs = import ./jobs.nix { inherit lib cd; };
  backends = import ./backends.nix { inherit lib cd; };
  sharing = import ./sharding.nix { inherit lib cd; } seen;
  check = import ./server-assertions.nix { inherit lib cd; };

  context = import ./context.nix { inherit common view; } module;
  inherit (context) firewall networks seen;
  mine = seen.on seen.servers;
  first = (lib.head mine).settings;
  # A committed snapshot asks no backend. The machine's own configuration may name one.
  methods = lib.optionals (discovery.snapshot == null) (jobs.methodsOf mine);
  discovery = config.services.clan-discovery;
  # The machine's own configuration may add backends, and metrics need a process.
  added = lib.filter (kind: kind != "static" && discovery.settings.backends.${kind} != null) (
    lib.attrNames discovery.settings.backends
  );
  # Its default depends on the unit.
  listens =
    options.services.clan-discovery.metrics.listen.highestPrio < (lib.mkOptionDefault null).priority
    && discovery.metrics.listen != null;
  asks =
    methods != [ ]
    || added != [ ]
    || listens
    || discovery.settings.web != null
    || discovery.verifyInterval != null;
  # A silent agent has no series: only the unit's metrics say that it is expected. Alerts need these metrics.
  needsUnit = asks || seen.agents != [ ] && receives || seen.alerting != [ ];
  exports = cd.exports.reduced common.exports;
  jobSettings = import ./job-settings.nix {
    inherit
      lib
      cd
      mine
      discovery
      ;
    render = import ../nixos/render.nix {
      inherit lib pkgs;
      cfg = discovery;
    };
  };
  darwin = discovery.settings.policy.darwin or "exclude";
  # Whether its store gets what agents send: that of the machine that receives, or the only one (receive.nix).
  stores = lib.filter (member: member.settings.backend == "victoriametrics") seen.servers;
  isOn = name: lib.any (member: member.machine == name);
  writesHere =
    front:
    let
      inherit (front.settings.receive.metrics) url;
    in
    if url != null then
      front.machine == machine || builtins.match "https?://(127\\.|localhost|\\[::1]).*" url == null
    else if isOn front.machine stores then
      front.machine == machine
    else
      isOn machine stores;
  receives =
    seen.agents == [ ]
    ||
      !lib.elem first.backend [
        "alloy"
        "prometheus"
      ]
      && (seen.receivers == [ ] || lib.any writesHere seen.receivers);
  scrapesItself =
    lib.any (entry: entry.settings.enableAutoDiscovery) mine
    && lib.any (exporter: exporter.type == "node" && !exporter.loopback) (
      lib.concatMap (member: cd.service.exportersOf member.settings) (seen.on seen.exporters)
    );
  watch = import ./alerts.nix {
    inherit lib cd options;
    inherit (discovery) mode;
    settings = first;
    additional = jobs.additionalOf mine;
    shares = sharing.machines != [ ];
    # An agent could send such metrics, and a machine serve them. Those that are read in a way of the user's may have no
    # label `machine`.
    own =
      if
        lib.any (member: member.machine != machine) seen.servers
        ||
          discovery.metrics.scrape != "none"
          && (seen.agents != [ ] || scrapesItself || discovery.metrics.scrape == "listen")
      then
        machine
      else
        null;
    inherit scrapesItself;
  };
  # `verify` knows the share of a scraper by its name.
  scraperName = if sharing.shard == null then first.backend else machine;
  beside = sharing.scrapersOf networks.addressOf;
  scraper = (import ../nixos/scraper.nix { inherit lib cd; }).own first config;
  security = (import ./security.nix context).server {
    inherit seen darwin;
    member = lib.head mine;
  };

  found = jobs.sharedOf {
    inherit sharing;
    # A snapshot does not read `settings.jobs`.
    ours = cd.configured security.jobs discovery.scrapeConfigs;
    additional = jobs.additionalOf mine;
  };
  checked = check {
    inherit
      common
      config
      seen
      mine
      methods
      backends
      darwin
      scraper
      ;
    inherit (found) ours additional;
    inherit sharing;
  };
  reachable = lib.filter (entry: !cd.service.isLoopback (entry.settings.listenAddress or null)) mine;
  ports = lib.filter (entry: entry.port != null && entry.port != 0) (
    map (entry: {
      inherit (entry) settings where;
      port = backends.portIn entry.settings config;
    }) reachable
  );
  alloy = import ./alloy.nix { inherit lib cd; } {
    inherit config seen mine;
    jobs = found.ours ++ found.additional;
  };
  isAlloy = first.backend == "alloy";

  # Without a backend to ask, the exported addresses are scraped.
  unreachable = lib.optionals (discovery.snapshot == null && !asks) (
    networks.warningsOf (lib.unique (map (member: member.machine) seen.exporters))
  );

  json = pkgs.formats.json { };
in
{
  imports = [
    ../nixos
    { config = lib.mkMerge (lib.optional (mine != [ ]) security.definitions); }
    {
      warnings = map (
        entry:
        "clan-discovery: ${entry.where}.enable is false, so ${machine} is no server and no target: remove it from the role"
      ) (seen.on seen.off);
    }
  ];

  config = lib.mkIf (mine != [ ]) {
    # The jobs belong to the machine; each instance adds its own settings.
    services = lib.mkMerge (
      lib.imap0 (
        index: entry:
        if index > 0 then
          backends.further entry.settings config
        else
          backends.first {
            inherit (entry) settings;
            inherit config options;
            inherit (found) ours additional;
          }
      ) mine
      ++ [
        {
          clan-discovery = {
            jobs = cd.declared.jobsOf (seen // { inherit darwin; });
            inherit (sharing) share;
            snapshot = lib.mkIf (first.snapshot != null) (lib.mkDefault first.snapshot);
            settings.jobs = jobSettings.settings;
            inherit (watch) alerts metrics;
            # A client that reaches a store can write under the name of an agent.
            front.receive.guarded = lib.mkIf (seen.agents != [ ]) (
              lib.genAttrs (lib.intersectLists [ "victoriametrics" "vmagent" ] [ first.backend ]) (
                _:
                "set `listenAddress = \"127.0.0.1\"` and `scrapeServers = false` in ${(lib.head mine).where}, or close the port"
              )
            );
          };
        }
        # Its receiver may be another machine.
        (lib.mkIf (seen.agents != [ ] && !discovery.front.receive.enable) {
          victoriametrics.extraOptions = import ../nixos/receive/store-flags.nix;
        })
        (lib.mkIf (discovery.snapshot == null) {
          clan-discovery = {
            enable = lib.mkDefault true;
            mode = lib.mkDefault (if needsUnit then first.mode else "static");
            # tailscaled's socket is a file.
            network = lib.mkDefault (
              lib.remove "tailscale" (methods ++ added) != [ ]
              || discovery.metrics.listen != null
              || discovery.settings.web != null
              || discovery.verifyInterval != null
            );
            openFirewall = lib.mkDefault first.web.openFirewall;
            verifyInterval = lib.mkDefault first.verifyInterval;
            settings = {
              server = lib.mkDefault machine;
              shard = lib.mkIf (sharing.shard != null) (
                lib.mapAttrsRecursive (_: lib.mkDefault) sharing.shard
              );
              # The setting `jobs` wins.
              jobs = lib.mapAttrsRecursive (_: lib.mkOverride 1100) security.jobs;
              inventory.file = lib.mkDefault (json.generate "clan-inventory.json" (cd.declared.inventoryOf seen));
              inventory.exports = lib.mkIf (exports != { }) (
                lib.mkDefault (json.generate "clan-exports.json" exports)
              );
              verify = lib.mkMerge [
                (lib.mkIf (scraper != null && !scraper.closed) {
                  scrapers.${scraperName}.url = lib.mkDefault scraper.url;
                })
                (lib.mkIf (beside != { }) { scrapers = beside; })
                (lib.mkIf (!receives) { pushed = lib.mkDefault false; })
              ];
              web = lib.mkIf first.web.enable {
                listen = lib.mkIf (first.web.listen != null) (lib.mkDefault first.web.listen);
                allow = lib.mkIf (first.web.allow != [ ]) first.web.allow;
                links = lib.mkIf (first.web.links != { }) (lib.mapAttrs (_: lib.mkDefault) first.web.links);
              };
              policy = lib.mapAttrsRecursive (_: lib.mkDefault) (
                # The service enables it on darwin machines.
                { darwin = "node"; } // first.policy
              );
            };
          };
        })
      ]
    );

    environment.etc = lib.mkIf isAlloy alloy.etc;
    networking.firewall.interfaces = firewall.opened ports;
    warnings = checked.warnings ++ jobSettings.warnings ++ unreachable;
    assertions =
      checked.assertions
      ++ jobSettings.assertions
      ++ lib.optionals isAlloy alloy.assertions
      ++ firewall.assertions "server" ports;
  };
}
