# Our clan service with real clan-core, for each clan: the configuration of each machine (`tests`, for lib.runTests),
# and the data for real programs (`data`).
{
  nixpkgsLib,
  clanCore,
  directory,
}:
let
  lib = import nixpkgsLib;
  clanOf = import ./service.nix;
  clan = arguments: clanOf ({ inherit nixpkgsLib clanCore directory; } // arguments);

  open.firewallInterfaces = [ "wg0" ];
  opened = {
    server = open;
    exporter = open;
    systemd = open;
  };
  # The same with more settings of the server.
  with_ = settings: more: clan (opened // { server = open // settings; } // more);

  clans = {
    none = clan opened;
    listed = with_ { staticTargets.nas = [ "nas:9100" ]; } { };
    tailscale = with_ { discoveryMethod = "tailscale"; } { };
    sharded = with_ { sharding = "hashmod"; } { };
    snapshot = with_ { snapshot = ../../examples/homelab/expected/targets.nix; } { };
    victoriametrics = with_ {
      backend = "victoriametrics";
      sharding = "hashmod";
    } { };
    vmagent = with_ {
      backend = "vmagent";
      sharding = "hashmod";
      remoteWrite = [ { url = "http://127.0.0.1:9/w"; } ];
    } { };
  };

  # docs/migrating.md, step 3
  migrated = {
    documented = true;
    server = {
      enableAutoDiscovery = true;
      discoveryMethod = "tailscale";
      port = 9090;
      globalConfig.scrape_interval = "15s";
      retentionTime = "30d";
    };
    exporter = {
      exporterType = "node";
      port = 9100;
      enabledCollectors = [
        "systemd"
        "processes"
        "meminfo"
      ];
    };
    systemd.port = 9558;
  };
  own = clan (migrated // { input = "self"; });
  named = clan (migrated // { input = "clan-discovery"; });
  changed =
    settings: more:
    with_ settings (
      {
        exporter = open // {
          exporterType = "node";
        };
        documented = true;
      }
      // more
    );
  jobNamed = name: {
    additionalScrapeConfigs = [
      {
        job_name = name;
        static_configs = [ { targets = [ "a:1" ]; } ];
      }
    ];
  };

  machine = found: name: found.machines.${name};
  names = found: map (job: job.job_name) (machine found "monitor").jobs;
  failed = found: name: (machine found name).failed;
  ports = found: name: lib.mapAttrs (_: open: open.allowedTCPPorts) (machine found name).interfaces;
  only =
    part: messages:
    if lib.length messages == 1 && lib.hasInfix part (lib.head messages) then part else messages;
in
{
  tests = {
    test_the_jobs_of_a_server = {
      expr = {
        jobs = names clans.listed;
        inherit (clans.listed.rendered.monitor) mode;
        failed = failed clans.listed "monitor" ++ failed clans.listed "backup";
      };
      expected = {
        jobs = [
          "prometheus"
          "blackbox"
          "nas"
          "node"
          "postgres"
          "systemd"
        ];
        mode = "static";
        failed = [ ];
      };
    };

    test_a_snapshot_takes_the_place_of_discovery = {
      expr = [
        (names clans.snapshot)
        clans.snapshot.rendered.monitor
        (failed clans.snapshot "monitor")
      ];
      expected = [
        [ "node" ]
        { }
        [ ]
      ];
    };

    # clan-core converts its interfaces to JSON schemas and finds no failed check.
    test_clan_core_accepts_the_service = {
      expr = {
        inherit (clans.none) checks;
        schemas = clans.none.schemas.clan-discovery-prometheus;
      };
      expected = {
        checks = [ ];
        schemas = [
          "agent"
          "alerting"
          "dashboards"
          "exporter"
          "front"
          "logs"
          "server"
          "storage"
        ];
      };
    };

    # docs/migrating.md, step 1: both forms give every machine the same configuration
    test_migrating_both_forms_are_the_same = {
      expr = map (part: own.${part} == named.${part}) [
        "machines"
        "units"
        "rendered"
      ];
      expected = [
        true
        true
        true
      ];
    };

    test_migrating_jobs_ports_and_units = {
      expr = {
        failed = failed own "monitor" ++ failed own "db";
        jobs = names own;
        monitor = ports own "monitor";
        db = ports own "db";
        everywhere = (machine own "db").allowedTCPPorts;
        collectors = (machine own "db").exporters.node.enabledCollectors;
        inherit (own) units;
      };
      expected = {
        failed = [ ];
        jobs = [
          "prometheus"
          "node"
          "systemd"
        ];
        monitor.tailscale0 = [
          9090
          9100
        ];
        db.tailscale0 = [
          9100
          9558
        ];
        everywhere = [ ];
        collectors = [
          "systemd"
          "processes"
          "meminfo"
        ];
        units = {
          backup = [ "clan-discovery" ];
          db = [ ];
          monitor = [ "clan-discovery" ];
          web = [ ];
        };
      };
    };

    # Its exporter runs, but no server scrapes it.
    test_migrating_an_instance_that_stays_behind = {
      expr =
        let
          found = clan (
            migrated
            // {
              systemd = migrated.systemd // open;
              inventory.instances.systemd.module.input = lib.mkForce "self";
            }
          );
        in
        [
          (names found)
          (failed found "monitor")
          (machine found "db").exporters.systemd.port
        ];
      expected = [
        [
          "prometheus"
          "node"
        ]
        [ ]
        9558
      ];
    };

    # docs/migrating.md, step 3, row by row
    test_migrating_a_job_called_node = {
      expr =
        only
          "clan-discovery: monitor: more than one scrape config is named 'node' (in the generated jobs and instances.monitoring.roles.server.machines.monitor.settings), which Prometheus refuses: rename yours"
          (failed (changed (jobNamed "node") { }) "monitor");
      expected = "clan-discovery: monitor: more than one scrape config is named 'node' (in the generated jobs and instances.monitoring.roles.server.machines.monitor.settings), which Prometheus refuses: rename yours";
    };

    test_migrating_a_job_called_prometheus = {
      expr =
        let
          found = changed (jobNamed "prometheus") { };
        in
        [
          (failed found "monitor")
          (names found)
          (lib.last (machine found "monitor").jobs).static_configs
        ];
      expected = [
        [ ]
        [
          "node"
          "systemd"
          "prometheus"
        ]
        [
          {
            targets = [ "a:1" ];
            labels = { };
          }
        ]
      ];
    };

    # Each job appears once.
    test_migrating_without_a_method = {
      expr =
        map
          (
            settings:
            let
              found = changed (settings // { staticTargets.node = [ "10.0.0.5:9100" ]; }) { };
            in
            [
              (failed found "monitor")
              (names found)
            ]
          )
          [
            { discoveryMethod = "static"; }
            { discoveryMethod = "none"; }
            { enableAutoDiscovery = false; }
          ];
      expected = [
        [
          [ ]
          [
            "prometheus"
            "node"
            "systemd"
          ]
        ]
        [
          [ ]
          [
            "prometheus"
            "node"
            "systemd"
          ]
        ]
        [
          [ ]
          [
            "prometheus"
            "node"
          ]
        ]
      ];
    };

    # `<job>` instead of `<job>-dns`; a job for each type; and interfaces are not set.
    test_migrating_dns_and_other_types = {
      expr =
        let
          found = changed { } {
            server = {
              discoveryMethod = "dns";
              dnsDiscovery.lan = {
                names = [ "*.monitoring.local" ];
                port = 9100;
              };
            };
            inventory.instances.db = {
              module = {
                name = "prometheus";
                input = "clan-discovery";
              };
              roles.exporter.machines.db.settings.exporterType = "postgres";
            };
          };
          asks =
            port: messages:
            lib.any (lib.hasInfix "no interface is known on which to open port ${port}:") messages;
        in
        [
          (names found)
          (asks "9090" (failed found "monitor"))
          (asks "9187" (failed found "db"))
        ];
      expected = [
        [
          "prometheus"
          "lan"
          "node"
          "postgres"
          "systemd"
        ]
        true
        true
      ];
    };

    # Collectors that node exporter does not have, and the port of the systemd exporter.
    test_migrating_the_rest = {
      expr =
        let
          found = changed { } {
            exporter = open // {
              exporterType = "node";
              enabledCollectors = [
                "systemd"
                "memory"
                "disk"
                "network"
              ];
            };
            inventory.instances.monitoring.roles.exporter.tags.all = { };
          };
        in
        {
          collectors = (machine found "db").exporters.node.enabledCollectors;
          warnings = lib.length (machine found "db").warnings;
          systemd = (machine found "db").exporters.systemd.port;
        };
      expected = {
        collectors = [
          "systemd"
          "meminfo"
          "diskstats"
          "netdev"
        ];
        warnings = 3;
        systemd = 9558;
      };
    };
  };

  data = {
    inherit (clans.listed) inventory settings exports;
    rendered = lib.genAttrs [ "none" "listed" "tailscale" ] (name: clans.${name}.rendered.monitor);
    jobs = {
      none.monitor = (machine clans.none "monitor").jobs;
      tailscale.monitor = (machine clans.tailscale "monitor").jobs;
      sharded = lib.genAttrs [ "backup" "monitor" ] (name: (machine clans.sharded name).jobs);
    };
    victoriametrics = clans.victoriametrics.victoriametrics.monitor;
    vmagent = clans.vmagent.vmagent.monitor.prometheusConfig;
    flags = clans.vmagent.vmagent.monitor.extraArgs;
  };
}
