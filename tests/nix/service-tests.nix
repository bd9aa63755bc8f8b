# The clan service under evalModules, one machine at a time: jobs, exporters, open ports, and each assertion.
{ nixpkgsLib }:
let
  t = import ./machine.nix { inherit nixpkgsLib; };
  inherit (t) lib;

  # The four machines of the clan; `mac` is a darwin machine.
  machines = {
    mac = {
      tags = [
        "all"
        "darwin"
      ];
      machineClass = "darwin";
    };
  }
  // lib.genAttrs [ "db" "monitor" "spare" ] (_: {
    tags = [
      "all"
      "nixos"
    ];
    machineClass = "nixos";
  });
  member =
    machine: instances: more:
    t.member ({ inherit machine machines instances; } // more);
  on = machine: instances: member machine instances { };
  onMonitor = on "monitor";
  with_ = module: { modules = [ module ]; };

  # Opens no port, for tests about other things.
  shut.firewallInterfaces = [ ];
  server = settings: { monitor = shut // settings; };
  # A clan with one instance.
  one = serverSettings: exporter: {
    m = {
      server = server serverSettings;
      inherit exporter;
    };
  };
  # The same without exporters.
  alone = serverSettings: { m.server = server serverSettings; };

  backendNames = [
    "prometheus"
    "victoriametrics"
    "vmagent"
  ];
  # Exporters with TLS, with a password, and with neither.
  secured = shut // {
    security = "tls";
    securityFiles = {
      certificate = "/run/secrets/crt";
      key = "/run/secrets/key";
      webConfig = "/run/secrets/web.yml";
    };
    exporters = {
      node = { };
      systemd.security = "basic-auth";
      redis.security = "none";
    };
  };
  insecure =
    let
      place = "clan-discovery: instances.m.roles.exporter.machines.db.settings";
      atServer = "clan-discovery: instances.m.roles.server.machines.monitor.settings.securityFiles";
      inherit (secured) securityFiles;
    in
    [
      {
        settings = secured // {
          exporters.redis = { };
        };
        says = "${place}: `security` is \"tls\", but the exporter redis has no web config file: set exporters.redis.security = \"none\"";
      }
      {
        settings = secured // {
          exporterType = "redis";
          exporters = { };
        };
        says = "${place}: `security` is \"tls\", but the exporter redis has no web config file: set security = \"none\"";
      }
      {
        settings = secured // {
          exporters.node.scheme = "http";
        };
        says = "${place}: `scheme` is http, but `security` is \"tls\": remove `scheme`";
      }
      {
        settings.security = "tls";
        says = "${place}.securityFiles: set certificate and key, too: this clan-core has no vars";
      }
      {
        settings = secured // {
          securityFiles = securityFiles // {
            webConfig = null;
          };
        };
        says = "${place}.securityFiles: set webConfig, too";
      }
      {
        settings = secured // {
          securityFiles = securityFiles // {
            key = ../data/snapshot.json;
          };
        };
        says = "${place}.securityFiles.key: ${toString ../data/snapshot.json} is, or would be copied, in the Nix store";
      }
      {
        machine = "monitor";
        server.securityFiles.password = "${builtins.storeDir}/00000000000000000000000000000000-password";
        settings = secured // {
          security = "basic-auth";
        };
        says = "${atServer}.password: ${builtins.storeDir}/00000000000000000000000000000000-password is, or would be copied, in the Nix store";
      }
      {
        machine = "monitor";
        server.securityFiles.ca = "/run/ca.crt";
        settings = {
          security = "tls";
        };
        says = "${atServer}.ca is set, but not certificate and key in instances.m.roles.exporter.machines.db.settings.securityFiles: set all of them or none";
      }
      {
        machine = "monitor";
        server.securityFiles.ca = "/run/ca.crt";
        settings = { };
        others.mac = {
          inherit (secured) security securityFiles;
        };
        says = "clan-discovery: instances.m.roles.exporter.machines.mac.settings.security is \"tls\", but mac is a darwin machine, whose exporter serves plain HTTP: set `security = lib.mkForce \"none\"` there";
      }
    ];

  # A network of clan-core, with `monitor` and `db`.
  mesh = {
    "clan-core/wireguard:wg::".networking.priority = 1000;
  }
  //
    lib.mapAttrs'
      (
        scope: host:
        lib.nameValuePair "clan-core/wireguard:wg:${scope}" { peer.hosts = [ { plain = host; } ]; }
      )
      {
        "controller:monitor" = "monitor.wg";
        "peer:db" = "db.wg";
      };
  # `db` with an exporter and servers of these settings.
  meshed =
    more: servers:
    member "db"
      {
        m = {
          server = servers;
          exporter.db = more.exporter or { };
        };
      }
      (
        {
          exports = mesh;
        }
        // removeAttrs more [ "exporter" ]
        // {
          modules = [ { networking.wireguard.interfaces.wg = { }; } ] ++ more.modules or [ ];
        }
      );

  jobsOf = config: (t.seen config).jobs;
  names = config: map (job: job.job_name) (jobsOf config);
  job = name: config: lib.findFirst (job: job.job_name == name) null (jobsOf config);
  files = config: map (job: (lib.head job.file_sd_configs).files) (jobsOf config);
  ports = config: lib.mapAttrs (_: open: open.allowedTCPPorts) config.networking.firewall.interfaces;
  discovery = config: config.services.clan-discovery;
  written = file: builtins.fromJSON (lib.last (lib.splitString "?" file));
  writtenExports = config: written (discovery config).settings.inventory.exports;

  # The expected message if it is the only one, else all messages.
  only =
    part: messages:
    if lib.length messages == 1 && lib.hasInfix part (lib.head messages) then part else messages;
  refuses = part: config: {
    expr = only part (t.failed config);
    expected = part;
  };
  warns = part: config: {
    expr = only part config.warnings;
    expected = part;
  };
in
{
  # The jobs of a server

  test_jobs_are_every_exporter_of_every_instance = {
    expr =
      let
        config = onMonitor {
          m.server = server { };
          m.exporter.db.exporters = {
            node.port = 9200;
            postgres = { };
          };
          m.exporter.monitor = shut;
          other.exporter.spare.exporterType = "systemd";
          off.exporter.spare.exporters = {
            nginx.enable = false;
            redis = { };
          };
        };
      in
      {
        failed = t.failed config;
        names = names config;
      };
    expected = {
      failed = [ ];
      names = [
        "prometheus"
        "node"
        "postgres"
        "redis"
        "systemd"
      ];
    };
  };

  test_without_a_method_a_build_renders_the_targets = {
    expr =
      map
        (
          discoveryMethod:
          let
            config = onMonitor (one { inherit discoveryMethod; } { db = { }; });
          in
          {
            inherit (discovery config) mode jobs;
            units = lib.attrNames config.systemd;
            etc = lib.attrNames config.environment.etc;
            renders =
              lib.hasSuffix "--output $out --only-listed --job node --job prometheus\n"
                config.environment.etc."clan-discovery/targets".source;
            files = files config;
          }
        )
        [
          "none"
          "static"
          [ ]
          [ "static" ]
        ];
    expected = lib.genList (_: {
      mode = "static";
      jobs = [
        "node"
        "prometheus"
      ];
      units = [ ];
      etc = [
        "clan-discovery/config.json"
        "clan-discovery/targets"
      ];
      renders = true;
      files = [
        [ "/etc/clan-discovery/targets/prometheus.json" ]
        [ "/etc/clan-discovery/targets/node.json" ]
      ];
    }) 4;
  };

  # Prometheus gets no event when a link changes its target.
  test_rendered_files_are_read_again_by_time = {
    expr = (lib.head (job "node" (onMonitor (one { } { db = { }; }))).file_sd_configs).refresh_interval;
    expected = "30s";
  };

  test_with_a_method_a_unit_keeps_the_files = {
    expr =
      let
        config = onMonitor (
          one {
            discoveryMethod = [
              "tailscale"
              "dns"
            ];
            staticTargets.nas = [ "nas:9100" ];
            dnsDiscovery.lan.names = [ "_lan._tcp.example.org" ];
            policy.max_age = "2d";
            mode = "timer";
          } { db = { }; }
        );
        inventory = written (discovery config).settings.inventory.file;
      in
      {
        inherit (discovery config) enable mode network;
        inherit ((discovery config).settings) server policy;
        inherit (inventory) meta;
        machines = lib.attrNames inventory.machines;
        files = files config;
        etc = lib.attrNames config.environment.etc;
      };
    expected = {
      enable = true;
      mode = "timer";
      network = true;
      server = "monitor";
      policy = {
        darwin = "node";
        max_age = "2d";
      };
      meta.domain = "home.arpa";
      machines = [
        "db"
        "mac"
        "monitor"
        "spare"
      ];
      files = map (name: [ "/var/lib/clan-discovery/targets/${name}.json" ]) [
        "prometheus"
        "lan"
        "nas"
        "node"
      ];
      etc = [ "clan-discovery/config.json" ];
    };
  };

  # Tailscale's socket needs no network, and `dnsDiscovery` applies to DNS only.
  test_only_the_method_is_asked = {
    expr =
      let
        config = onMonitor (alone {
          discoveryMethod = "tailscale";
          port = 9191;
          dnsDiscovery.lan.names = [ "x.example.org" ];
        });
      in
      [
        (names config)
        (discovery config).settings.backends.dns
        config.services.prometheus.port
      ];
    expected = [
      [
        "prometheus"
        "clan-discovery"
      ]
      null
      9191
    ];
  };

  test_without_auto_discovery_only_the_servers_own_jobs = {
    expr =
      let
        config = onMonitor (
          one {
            enableAutoDiscovery = false;
            discoveryMethod = "tailscale";
            staticTargets.nas = [ "10.0.0.5:1" ];
            additionalScrapeConfigs = [ { job_name = "node"; } ];
          } { db = { }; }
        );
      in
      [
        (discovery config).mode
        (names config)
        (t.failed config)
      ];
    expected = [
      "static"
      [
        "prometheus"
        "nas"
        "node"
      ]
      [ ]
    ];
  };

  # The user's own scrape config often has this name.
  test_a_probe_without_a_target_is_no_job = {
    expr =
      let
        probes =
          target:
          one { additionalScrapeConfigs = [ { job_name = "blackbox"; } ]; } {
            db.exporters.blackbox = target;
          };
        config = onMonitor (probes { });
      in
      [
        (names config)
        (t.failed config)
        (names (
          onMonitor (probes {
            params.target = "https://example.org";
          })
        ))
      ];
    expected = [
      [
        "prometheus"
        "blackbox"
      ]
      [ ]
      [
        "prometheus"
        "blackbox"
        "blackbox"
      ]
    ];
  };

  test_the_snapshot_is_the_scrape_configs = {
    expr =
      let
        config =
          file:
          onMonitor (
            one {
              discoveryMethod = "tailscale";
              snapshot = file;
            } { db = { }; }
          );
        nix = config ../../examples/homelab/expected/targets.nix;
        json = config ../../tests/data/snapshot.json;
      in
      {
        names = names nix;
        targets = lib.length (job "node" nix).static_configs;
        first = lib.head (job "node" json).static_configs;
        inherit (discovery nix) enable;
        units = lib.attrNames nix.systemd;
        failed = t.failed nix ++ t.failed json;
      };
    expected = {
      names = [ "node" ];
      targets = 6;
      first = {
        targets = [ "100.64.0.2:9100" ];
        labels.instance = "db";
      };
      enable = false;
      units = [ ];
      failed = [ ];
    };
  };

  # Scalars of the service are defaults; the machine's own configuration wins.
  # A node exporter; none; shared targets, where another server may scrape the node exporter; a job of the user; no unit.
  test_the_metrics_reach_the_scraper = {
    expr =
      let
        seen =
          settings: exporter:
          let
            config = onMonitor {
              m = {
                server = server settings // {
                  spare = shut // settings;
                };
                inherit exporter;
              };
            };
            ours = job "clan-discovery" config;
          in
          {
            inherit ((discovery config).metrics) scrape listen;
            failed = t.failed config;
            flags = config.services.prometheus.exporters.node.extraFlags;
            job = if ours == null then null else lib.removeAttrs ours [ "job_name" ];
            absent = (discovery config).alerts.rules.ClanDiscoveryAbsent.enable or true;
            ruled = config.services.prometheus.ruleFiles != [ ];
          };
        tailnet.discoveryMethod = "tailscale";
        shared = tailnet // {
          sharding = "hashmod";
        };
        node.monitor = shut;
        own = {
          job_name = "clan-discovery";
          static_configs = [ { targets = [ "localhost:9199" ]; } ];
        };
      in
      [
        (seen tailnet node)
        (seen tailnet { db = shut; })
        (seen shared node)
        (seen (shared // { mode = "timer"; }) node)
        (seen (tailnet // { scrapeConfigs = [ own ]; }) node)
        (seen { } node)
        (seen (tailnet // { alerts.enable = false; }) node)
      ];
    expected =
      let
        found = {
          scrape = "node-exporter";
          listen = null;
          failed = [ ];
          flags = [ "--collector.textfile.directory=/var/lib/clan-discovery/metrics" ];
          job = null;
          absent = true;
          ruled = true;
        };
        listener = found // {
          scrape = "listen";
          listen = "127.0.0.1:9199";
          flags = [ ];
          job.static_configs = [
            {
              targets = [ "127.0.0.1:9199" ];
              labels = {
                instance = "monitor";
                machine = "monitor";
              };
            }
          ];
        };
        unread = found // {
          flags = [ ];
        };
      in
      [
        found
        listener
        listener
        (found // { absent = false; })
        (
          unread
          // {
            scrape = "none";
            job.static_configs = [
              {
                targets = [ "localhost:9199" ];
                labels = { };
              }
            ];
          }
        )
        (
          unread
          // {
            scrape = null;
            ruled = false;
          }
        )
        (found // { ruled = false; })
      ];
  };

  test_an_exporter_with_the_port_of_the_metrics =
    refuses "port 9199 is used by nut (m) and services.clan-discovery.metrics.listen (m)"
      (onMonitor {
        m.server = server { discoveryMethod = "tailscale"; };
        m.exporter.monitor = shut // {
          exporterType = "nut";
        };
      });

  test_two_instances_change_the_alerts = refuses "which differ in alerts" (onMonitor {
    a.server = server { };
    b.server = server { alerts.rules.ClanTargetStray.enable = false; };
  });

  test_the_machine_replaces_discovery = {
    expr =
      map
        (
          own:
          let
            config = member "monitor" (one { } { db = { }; }) (with_ {
              services.clan-discovery = own;
            });
          in
          {
            inherit (discovery config) enable mode;
            names = names config;
            failed = t.failed config;
          }
        )
        [
          { enable = false; }
          {
            enable = true;
            settings = {
              server = "other";
              inventory.file = "/etc/own.json";
              inventory.exports = "/etc/exports.json";
              backends.tailscale.t = { };
            };
          }
          { snapshot = ../data/snapshot.json; }
          { metrics.listen = "127.0.0.1:9199"; }
        ];
    expected =
      let
        both = [
          "prometheus"
          "clan-discovery"
          "node"
        ];
        found = enable: mode: names: {
          inherit enable mode names;
          failed = [ ];
        };
      in
      [
        (found false "static" [ ])
        (found true "resident" both)
        (found false "timer" [ "node" ])
        (found true "resident" both)
      ];
  };

  # A darwin machine has no NixOS exporter, so the user can give a job this name.
  test_a_darwin_exporter_is_a_job_where_the_policy_says_so = {
    expr =
      map
        (
          policy:
          names (
            onMonitor (
              one
                {
                  inherit policy;
                  additionalScrapeConfigs = [ { job_name = "nginx"; } ];
                }
                {
                  mac.exporterType = "nginx";
                }
            )
          )
        )
        [
          { }
          { darwin = "include"; }
        ];
    expected = [
      [
        "prometheus"
        "nginx"
      ]
      [
        "prometheus"
        "nginx"
        "nginx"
      ]
    ];
  };

  # Its machines evaluate, with the ports that they have with it.
  test_the_only_server_may_be_switched_off =
    let
      config = on "db" {
        m.server.monitor = {
          enable = false;
          discoveryMethod = "tailscale";
        };
        m.exporter.db = { };
      };
    in
    {
      expr = {
        failed = t.failed config;
        inherit (config.networking.firewall) interfaces;
      };
      expected = {
        failed = [ ];
        interfaces.tailscale0.allowedTCPPorts = [ 9100 ];
      };
    };

  test_the_password_is_sent_to_every_target_of_the_job =
    warns "the password of `security` is also sent to the targets of job systemd in staticTargets"
      (onMonitor {
        m.server = server {
          securityFiles = {
            ca = "/etc/ca.crt";
            password = "/run/secrets/password";
          };
          staticTargets.systemd = [ "192.0.2.1:9558" ];
          staticTargets.node = [ "192.0.2.1:9100" ];
        };
        m.exporter.db = secured;
      });

  # A node exporter of the machine that is no target has metrics that no server sees.
  test_metrics_are_served_where_no_server_reads_node_exporter =
    let
      node.services.prometheus.exporters.node.enable = true;
      of =
        mode: exporter: more:
        (member "monitor" {
          m.server = server (
            {
              discoveryMethod = "tailscale";
              inherit mode;
            }
            // more
          );
          m.exporter = exporter;
        } (with_ node)).services.clan-discovery.metrics.scrape;
      own.additionalScrapeConfigs = [
        {
          job_name = "own";
          static_configs = [ { targets = [ "localhost:9100" ]; } ];
        }
      ];
    in
    {
      expr = [
        (of "resident" { monitor = shut; } { })
        (of "resident" { db = shut; } { })
        (of "timer" { db = shut; } { })
        (of "timer" { db = shut; } own)
      ];
      expected = [
        "node-exporter"
        "listen"
        null
        "node-exporter"
      ];
    };

  test_the_machine_may_change_one_value_of_the_policy = {
    expr =
      (member "monitor"
        (alone {
          policy.shrink_after = {
            rounds = 3;
            time = "5m";
          };
        })
        (with_ {
          services.clan-discovery.settings.policy.shrink_after.rounds = 9;
        })
      ).services.clan-discovery.settings.policy.shrink_after;
    expected = {
      rounds = 9;
      time = "5m";
    };
  };

  test_the_snapshot_is_checked = refuses "invalid address 'node: db'" (
    onMonitor (alone {
      snapshot = ../../tests/data/snapshot-wrong.json;
    })
  );

  # A host by `var` has the path of the flake, which changes with every commit.
  test_exports_hold_no_path_of_the_flake = {
    expr = writtenExports (
      member "monitor" (alone { }) {
        exports = {
          "tor:t::machines".peer.hosts = throw "not generated yet";
          "a:b::".networking = {
            priority = 7;
            x = "FLAKE";
          };
          "a:b::db".peer = {
            hosts = [
              { var.flake = "FLAKE"; }
              { plain = "db.wg"; }
            ];
            user = "FLAKE";
          };
        };
      }
    );
    expected = {
      "a:b::".networking.priority = 7;
      "a:b::db".peer.hosts = [ { plain = "db.wg"; } ];
    };
  };

  # All users can read the files.
  test_no_secret_is_written_down = {
    expr =
      map
        (
          discoveryMethod:
          lib.hasInfix "SECRET" (
            builtins.toJSON
              (onMonitor (alone {
                inherit discoveryMethod;
                extraFlags = [ "SECRET" ];
                additionalScrapeConfigs = [
                  {
                    job_name = "x";
                    password = "SECRET";
                  }
                ];
                rules = [ "SECRET" ];
                remoteWrite = [ { url = "http://SECRET@x/"; } ];
              })).environment.etc
          )
        )
        [
          "none"
          "tailscale"
        ];
    expected = [
      false
      false
    ];
  };

  # Then the members are the machines, with the tags of every machine.
  test_an_older_clan_core_shows_no_machines = {
    expr =
      let
        config = member "monitor" (one { } { db = { }; }) { machines = null; };
      in
      [
        (t.failed config)
        (written (discovery config).settings.inventory.file).machines.db
      ];
    expected = [
      [ ]
      {
        machineClass = "nixos";
        tags = [
          "all"
          "nixos"
        ];
      }
    ];
  };

  test_a_job_prometheus_of_the_users_replaces_ours = {
    expr =
      lib.concatMap
        (
          option:
          map
            (
              discoveryMethod:
              let
                own = {
                  job_name = "prometheus";
                  static_configs = [ { targets = [ "localhost:9090" ]; } ];
                };
                config = onMonitor (alone {
                  inherit discoveryMethod;
                  ${option} = [ own ];
                });
              in
              [
                (t.failed config)
                (lib.remove "clan-discovery" (names config))
                (map (lib.hasInfix "replaces the generated one") config.warnings)
              ]
            )
            [
              "none"
              "tailscale"
            ]
        )
        [
          "additionalScrapeConfigs"
          "scrapeConfigs"
        ];
    expected = lib.genList (_: [
      [ ]
      [ "prometheus" ]
      [ true ]
    ]) 4;
  };

  # Relabelling decides what such a target means: the URL of a probe, a variable of VictoriaMetrics.
  test_targets_of_the_users_are_not_judged = {
    expr =
      let
        probe = {
          job_name = "probe";
          static_configs = [
            {
              targets = [
                "https://example.org"
                "%{HOME}"
              ];
            }
          ];
        };
        config =
          backend:
          onMonitor (alone {
            inherit backend;
            scrapeConfigs = [ probe ];
          });
      in
      [
        (t.failed (config "prometheus"))
        (t.failed (config "victoriametrics"))
        (
          lib.last (config "victoriametrics").services.victoriametrics.prometheusConfig.scrape_configs
          == probe
        )
      ];
    expected = [
      [ ]
      [ ]
      true
    ];
  };

  test_jobs_that_the_machine_adds_are_scraped = {
    expr = names (
      member "monitor" (alone { discoveryMethod = "tailscale"; }) (with_ {
        services.clan-discovery.settings = {
          backends.static.lab.targets.nas = [ "nas:1" ];
          backends.dns.d = {
            names = [ "x" ];
            job = "web";
          };
          exporters.redis.select = { };
        };
      })
    );
    expected = [
      "prometheus"
      "clan-discovery"
      "nas"
      "redis"
      "web"
    ];
  };

  # Without a discovery method of the clan, but with a backend of the machine, also of a kind that Nix does not know.
  test_a_backend_that_the_machine_adds_is_asked = {
    expr =
      map
        (
          backends:
          let
            config = member "monitor" (alone { }) (with_ {
              services.clan-discovery.settings = { inherit backends; };
              services.clan-discovery.metrics.scrape = "none";
            });
          in
          [
            (t.failed config)
            (discovery config).mode
            (discovery config).network
          ]
        )
        [
          { tailscale.t = { }; }
          { consul.lab.url = "http://localhost"; }
        ];
    expected = [
      [
        [ ]
        "resident"
        false
      ]
      [
        [ ]
        "resident"
        true
      ]
    ];
  };

  test_the_machine_switches_off = refuses "services.prometheus.enable is false on monitor" (
    member "monitor" (alone { }) (with_ {
      services.prometheus.enable = false;
    })
  );

  # Shards are by name, which does not change with an address. Each server scrapes the servers' own job.
  test_each_of_two_servers_has_a_share = {
    expr =
      let
        shared = shut // {
          sharding = "hashmod";
          additionalScrapeConfigs = [
            { job_name = "own"; }
            {
              job_name = "here";
              static_configs = [ { targets = [ "localhost:9091" ]; } ];
            }
          ];
        };
        instances = {
          m.server = lib.genAttrs [ "monitor" "spare" ] (_: shared);
          m.exporter.db = { };
          n.server.mac.sharding = "hashmod";
        };
        rules = name: config: (job name config).relabel_configs or [ ];
        has =
          part: config:
          let
            written = config.environment.etc."clan-discovery/config.json".source;
          in
          builtins.replaceStrings [ part ] [ "" ] written != written;
        share =
          config:
          let
            hashed = lib.head (rules "node" config);
            kept = lib.last (rules "node" config);
          in
          [
            (rules "prometheus" config)
            (rules "here" config) # each has its own
            hashed.source_labels
            hashed.modulus
            (kept.source_labels == [ hashed.target_label ])
            kept.regex
            (lib.head (rules "own" config)).source_labels
            # What clan-discovery expects to be scraped.
            (has ''"modulus":2'' config)
            (has ''"action":"keep","regex":"${kept.regex}"'' config)
          ];
      in
      map (name: share (on name instances)) [
        "monitor"
        "spare"
      ];
    expected =
      map
        (number: [
          [ ]
          [ ]
          [
            "job"
            "instance"
          ]
          2
          true
          number
          [
            "job"
            "__address__"
            "__param_target"
          ]
          true
          true
        ])
        [
          "0"
          "1"
        ];
  };

  # From role and machine. The machine's own configuration wins over scalars, also in nested options.
  test_lists_merge_and_the_machine_wins = {
    expr =
      let
        said = shut // {
          rules = [ "role" ];
          extraFlags = [ "--a" ];
          retentionTime = "30d";
          globalConfig = {
            scrape_interval = "15s";
            external_labels.site = "home";
          };
          alertmanager.configuration.route.receiver = "x";
        };
        instances.m.server.monitor = [
          said
          { rules = [ "machine" ]; }
        ];
        config = member "monitor" instances (with_ {
          services.prometheus = {
            retentionTime = "7d";
            globalConfig.scrape_interval = "1m";
            globalConfig.external_labels.site = "office";
            rules = [ "own" ];
          };
        });
      in
      {
        inherit (config.services.prometheus)
          rules
          retentionTime
          port
          globalConfig
          extraFlags
          ;
        alertmanager = { inherit (config.services.prometheus.alertmanager) configuration; };
      };
    expected = {
      rules = [
        "own"
        "machine"
        "role"
      ];
      extraFlags = [ "--a" ];
      retentionTime = "7d";
      port = 9090;
      globalConfig = {
        scrape_interval = "1m";
        external_labels.site = "office";
      };
      # The type `attrs` does not resolve a mkDefault within a definition.
      alertmanager = {
        configuration.route.receiver = "x";
      };
    };
  };

  # Today's service keeps 30 days; Prometheus's default is 15.
  test_retention_is_that_of_todays_service = {
    expr = [
      (onMonitor (alone { })).services.prometheus.retentionTime
      (onMonitor (alone {
        backend = "victoriametrics";
      })).services.victoriametrics.retentionPeriod
      (onMonitor (alone {
        retentionTime = "90d";
      })).services.prometheus.retentionTime
    ];
    expected = [
      "30d"
      "30d"
      "90d"
    ];
  };

  test_an_instance_of_another_module =
    warns "clan-discovery: old: instances of a module prometheus from another input"
      (
        member "monitor" (alone { }) {
          machines = null;
          modules = [
            {
              options.clanConfig = lib.mkOption { type = lib.types.raw; };
              config.clanConfig.inventory = {
                machines.monitor = {
                  tags = [ ];
                  machineClass = "nixos";
                };
                instances.m.module.name = "prometheus";
                instances.old.module.name = "prometheus";
                instances.wg.module.name = "wireguard";
              };
            }
          ];
        }
      );

  test_scrape_configs_of_the_machine_are_joined = {
    expr = lib.sort (a: b: a < b) (
      names (
        member "monitor" (one { } { db = { }; }) (with_ {
          services.prometheus.scrapeConfigs = [ { job_name = "mine"; } ];
        })
      )
    );
    expected = [
      "mine"
      "node"
      "prometheus"
    ];
  };

  test_two_instances_on_one_server_are_one_list = {
    expr =
      let
        config = onMonitor {
          a.server = server { additionalScrapeConfigs = [ { job_name = "x"; } ]; };
          b.server = server { additionalScrapeConfigs = [ { job_name = "y"; } ]; };
          b.exporter.db = { };
        };
      in
      [
        (t.failed config)
        (names config)
      ];
    expected = [
      [ ]
      [
        "prometheus"
        "node"
        "x"
        "y"
      ]
    ];
  };

  # VictoriaMetrics refuses `refresh_interval` in file_sd_configs.
  test_victoriametrics_has_the_same_jobs = {
    expr =
      let
        config = onMonitor {
          m.server.monitor = {
            firewallInterfaces = [ "wg0" ];
            backend = "victoriametrics";
            globalConfig.scrape_interval = "1m";
            globalConfig.evaluation_interval = "1m";
            extraFlags = [ "-x" ];
            retentionTime = "90d";
            port = 8500;
          };
          m.exporter.db = { };
        };
        vm = config.services.victoriametrics;
      in
      {
        failed = t.failed config;
        ports = ports config;
        inherit (vm.prometheusConfig) global;
        inherit (vm) listenAddress retentionPeriod extraOptions;
        jobs = vm.prometheusConfig.scrape_configs;
      };
    expected = {
      failed = [ ];
      ports.wg0 = [ 8500 ];
      global.scrape_interval = "1m";
      listenAddress = ":8500";
      retentionPeriod = "90d";
      extraOptions = [
        "-enableTCP6"
        "-x"
      ];
      jobs =
        map
          (name: {
            job_name = name;
            file_sd_configs = [ { files = [ "/etc/clan-discovery/targets/${name}.json" ]; } ];
          })
          [
            "prometheus"
            "node"
          ];
    };
  };

  test_vmagent_sends_to_every_url = {
    expr =
      let
        config = onMonitor {
          m.server.monitor = {
            firewallInterfaces = [ "wg0" ];
            backend = "vmagent";
            extraFlags = [ "-x" ];
            port = 8500;
            remoteWrite = [
              { url = "http://a/w"; }
              { url = "http://b/w"; }
            ];
          };
        };
      in
      {
        failed = t.failed config;
        ports = ports config;
        inherit (config.services.vmagent) remoteWrite extraArgs;
      };
    expected = {
      failed = [ ];
      ports.wg0 = [ 8500 ];
      remoteWrite.url = "http://a/w";
      extraArgs = [
        "-enableTCP6"
        "-httpListenAddr=:8500"
        "-remoteWrite.url=http://b/w"
        "-x"
      ];
    };
  };

  test_vmagent_with_a_url_of_the_machine = {
    expr = t.failed (
      member "monitor" (alone { backend = "vmagent"; }) (with_ {
        services.vmagent.remoteWrite.url = "http://c/w";
      })
    );
    expected = [ ];
  };

  # The exporters of a machine

  test_settings_reach_the_exporter = {
    expr =
      let
        config = on "db" (
          one { } {
            db = shut // {
              exporterType = "node";
              port = 9200;
              enabledCollectors = [ "systemd" ];
              listenAddress = "::";
              labels.site = "home";
              scheme = "http";
              extraFlags = [ "--x" ];
            };
          }
        );
      in
      {
        failed = t.failed config;
        node = config.services.prometheus.exporters.node;
      };
    expected = {
      failed = [ ];
      node = {
        enable = true;
        port = 9200;
        enabledCollectors = [ "systemd" ];
        disabledCollectors = [ ];
        listenAddress = "::";
        extraFlags = [ "--x" ];
        openFirewall = false;
      };
    };
  };

  test_the_machine_wins_over_a_setting = {
    expr =
      (member "db"
        {
          m.exporter.db = shut // {
            listenAddress = "::";
          };
        }
        (with_ {
          services.prometheus.exporters.node.listenAddress = "127.0.0.1";
        })
      ).services.prometheus.exporters.node.listenAddress;
    expected = "127.0.0.1";
  };

  test_the_machine_does_not_win_over_the_port =
    refuses
      "exporters.node.port is 1 on db, but the server scrapes port 9100: set `port` in instances.m.roles.exporter.machines.db.settings.exporters.node"
      (
        member "db"
          {
            m.exporter.db = shut // {
              exporters.node = { };
            };
          }
          (with_ {
            services.prometheus.exporters.node.port = 1;
          })
      );

  test_the_place_of_the_port_is_that_of_its_exporter =
    refuses "set `port` in instances.m.roles.exporter.machines.db.settings.exporters.node"
      (
        member "db"
          {
            m.exporter.db = shut // {
              exporters.node = { };
            };
          }
          (with_ {
            services.prometheus.exporters.node.port = 1;
          })
      );

  # NixOS keeps a removed exporter as an option without the options of an exporter.
  test_an_exporter_that_only_nixos_knows = {
    expr =
      let
        newer = with_ {
          options.services.prometheus.exporters = lib.mkOption {
            type = lib.types.submodule {
              options = {
                newest = lib.mkOption {
                  default = { };
                  type = lib.types.submodule {
                    options = {
                      enable = lib.mkOption { default = false; };
                      port = lib.mkOption { };
                      word = lib.mkOption { default = ""; };
                    };
                  };
                };
                removed = lib.mkOption {
                  visible = false;
                  apply = _: throw "removed";
                };
              };
            };
          };
        };
        newest = member "db" {
          m.exporter.db = shut // {
            exporters.newest = {
              port = 7;
              word = "x";
            };
          };
        } newer;
        removed = member "db" {
          m.exporter.db = shut // {
            exporters.removed = {
              port = 7;
              x = 1;
            };
          };
        } newer;
        said = "x would be settings of services.prometheus.exporters.removed";
      in
      [
        newest.services.prometheus.exporters.newest
        (t.failed newest)
        (only said (t.failed removed) == said)
      ];
    expected = [
      {
        enable = true;
        port = 7;
        word = "x";
      }
      [ ]
      true
    ];
  };

  test_an_exporter_that_the_settings_switch_off = {
    expr =
      let
        instances = one { } {
          db = shut // {
            enable = false;
          };
        };
      in
      [
        (t.seen (on "db" instances)).exporters
        (names (onMonitor instances))
      ];
    expected = [
      { }
      [ "prometheus" ]
    ];
  };

  test_an_exporter_that_the_machine_switches_off =
    refuses "exporters.node.enable is false on db, but the server scrapes it"
      (
        member "db" { m.exporter.db = shut; } (with_ {
          services.prometheus.exporters.node.enable = false;
        })
      );

  # They are in the README of today's service, and node exporter would not start with them.
  test_collectors_that_node_exporter_does_not_have = {
    expr =
      let
        config = on "db" {
          m.exporter.db = shut // {
            enabledCollectors = [
              "systemd"
              "cpu"
              "memory"
              "disk"
              "network"
            ];
          };
        };
      in
      [
        config.services.prometheus.exporters.node.enabledCollectors
        (map (lib.hasInfix "node exporter has no collector") config.warnings)
      ];
    expected = [
      [
        "systemd"
        "cpu"
        "meminfo"
        "diskstats"
        "netdev"
      ]
      [
        true
        true
        true
      ]
    ];
  };

  # Its port is opened, but no exporter is enabled.
  test_a_service_is_no_exporter_of_nixos = {
    expr =
      let
        config = on "db" {
          m.exporter.db = {
            firewallInterfaces = [ "wg0" ];
            exporters = {
              caddy = { };
              own.port = 7;
            };
          };
        };
      in
      [
        (t.failed config)
        (t.seen config).exporters
        (ports config)
      ];
    expected = [
      [ ]
      { }
      {
        wg0 = [
          7
          2019
        ];
      }
    ];
  };

  # The firewall

  test_the_interface_of_tailscale_where_it_is_the_method = {
    expr =
      let
        instances = {
          m.server.monitor.discoveryMethod = "tailscale";
          other.exporter.db = { };
          m.exporter.monitor = { };
        };
        renamed = with_ { services.tailscale.interfaceName = "ts1"; };
        userspace = with_ { services.tailscale.interfaceName = "userspace-networking"; };
      in
      [
        (ports (on "db" instances))
        (ports (on "monitor" instances))
        (ports (member "db" instances renamed))
        # Userspace networking forwards connections to the loopback.
        (ports (member "db" instances userspace))
        (t.failed (member "db" instances userspace))
        (on "db" instances).networking.firewall.allowedTCPPorts
      ];
    expected = [
      { tailscale0 = [ 9100 ]; }
      {
        tailscale0 = [
          9090
          9100
        ];
      }
      { ts1 = [ 9100 ]; }
      { }
      [ ]
      [ ]
    ];
  };

  test_no_interface_is_known =
    refuses
      "clan-discovery: instances.m.roles.exporter.machines.db.settings: no interface is known on which to open port 9100: db has no address in a network that the clan exports (none), and no server's discoveryMethod is tailscale: set `firewallInterfaces`"
      (
        on "db" {
          m.server.monitor = { };
          m.exporter.db = { };
        }
      );

  test_no_interface_is_known_of_a_server = refuses "port 9090" (onMonitor {
    m.server.monitor = { };
  });

  test_the_interface_of_the_network_that_gives_the_address = {
    expr = lib.mapAttrs (_: ports) {
      exports = meshed { } { monitor = shut; };
      tailscale = meshed { } { monitor.discoveryMethod = "tailscale"; };
      without_tailscaled = meshed { tailscale = false; } { monitor.discoveryMethod = "tailscale"; };
      # Each server reaches the machine in another network.
      both = meshed { } {
        monitor.discoveryMethod = "tailscale";
        spare = { };
      };
    };
    expected = {
      exports.wg = [ 9100 ];
      tailscale.tailscale0 = [ 9100 ];
      without_tailscaled.wg = [ 9100 ];
      both = {
        tailscale0 = [ 9100 ];
        wg = [ 9100 ];
      };
    };
  };

  test_why_no_interface_is_known = {
    expr =
      let
        why = config: map (message: lib.elemAt (lib.splitString ": " message) 3) (t.failed config);
        monitor = { };
      in
      lib.mapAttrs (_: why) {
        dns = meshed { } { monitor.discoveryMethod = "dns"; };
        snapshot = meshed { } { monitor.snapshot = ../data/snapshot-additional.json; };
        nobody = on "db" { m.exporter.db = { }; };
        nowhere = meshed { exports = { }; } { inherit monitor; };
        no_tailscaled = meshed {
          exports = { };
          tailscale = false;
        } { monitor.discoveryMethod = "tailscale"; };
        service = meshed { exports."x/nebula:n:node:db".peer.hosts = [ { plain = "db.n"; } ]; } {
          inherit monitor;
        };
        disabled = meshed { modules = [ { networking.wireguard.interfaces = lib.mkForce { }; } ]; } {
          inherit monitor;
        };
      };
    expected = {
      dns = [ "the address of db comes from DNS" ];
      snapshot = [ "the address of db comes from a snapshot" ];
      nobody = [ "no machine has the role server" ];
      nowhere = [
        "db has no address in a network that the clan exports (none), and no server's discoveryMethod is tailscale"
      ];
      no_tailscaled = [
        "db has no address in a network that the clan exports (none), and services.tailscale.enable is false"
      ];
      service = [ "db has its address in x/nebula:n, whose interface is not known" ];
      disabled = [
        "db has its address in clan-core/wireguard:wg, whose interface wg it does not have"
      ];
    };
  };

  # nftables refuses `zt+`, iptables takes `zt*` literally.
  test_a_prefix_is_spelled_as_the_firewall_wants = {
    expr =
      map
        (
          backend:
          lib.attrNames (
            ports (
              member "db"
                {
                  m.server = server { };
                  m.exporter.db.firewallInterfaces = [
                    "zt+"
                    "wg*"
                  ];
                }
                (with_ {
                  networking.firewall = { inherit backend; };
                })
            )
          )
        )
        [
          "iptables"
          "nftables"
        ];
    expected = [
      [
        "wg+"
        "zt+"
      ]
      [
        "wg*"
        "zt*"
      ]
    ];
  };

  test_an_interface_of_a_network_that_the_machine_is_not_in =
    refuses
      "clan-discovery: instances.m.roles.exporter.machines.spare.settings.firewallInterfaces: spare has no interface wg: add it to the network, or name an interface that it has"
      (
        member "spare" {
          m.server = server { };
          m.exporter.spare.firewallInterfaces = [ "wg" ];
        } { exports = mesh; }
      );

  # The other interface may be the one in use.
  test_an_interface_beside_another = {
    expr = t.failed (
      member "spare" {
        m.server = server { };
        m.exporter.spare.firewallInterfaces = [
          "wg"
          "eth1"
        ];
      } { exports = mesh; }
    );
    expected = [ ];
  };

  test_a_server_outside_the_network_of_a_target =
    warns "monitor scrapes db (clan-core/wireguard:wg) in networks that it is not in"
      (
        member "monitor" {
          m.server = server { };
          m.exporter.db = { };
        } { exports = removeAttrs mesh [ "clan-core/wireguard:wg:controller:monitor" ]; }
      );

  test_an_internal_address_where_the_servers_do_not_scrape = {
    expr = t.failed (
      meshed {
        modules = [ { clan.core.networking.internalListenAddresses = [ "200::1" ]; } ];
        exporter.listen = "internal";
      } { monitor = shut; }
    );
    expected = [
      "clan-discovery: instances.m.roles.exporter.machines.db.settings.listen: the servers scrape db at db.wg, which is not in clan.core.networking.internalListenAddresses (200::1): remove `listen`"
    ];
  };

  test_an_internal_address_where_the_servers_ask_tailscale =
    refuses
      "the address of db comes from tailscale, not from a network that the clan exports: remove `listen`"
      (
        on "db" {
          m.server = server { discoveryMethod = "tailscale"; };
          m.exporter.db = shut // {
            listen = "internal";
          };
        }
      );

  test_an_exporter_without_tailscale_where_the_servers_ask_it =
    refuses "set services.tailscale.enable = true, or set `firewallInterfaces`"
      (
        member "db" {
          m.server = server { discoveryMethod = "tailscale"; };
          m.exporter.db = { };
        } { tailscale = false; }
      );

  test_without_a_firewall_nothing_is_to_be_said = {
    expr = t.failed (
      member "db" { m.exporter.db = { }; } (with_ {
        networking.firewall.enable = false;
      })
    );
    expected = [ ];
  };

  # Its deployed system may use any method: another guess would close the ports that it needs.
  test_a_mistyped_method_of_the_only_server =
    let
      evaluates =
        servers:
        (builtins.tryEval (
          builtins.deepSeq
            (on "db" {
              m.server = servers;
              m.exporter.db = { };
            }).networking.firewall.interfaces
            true
        )).success;
      mistyped.discoveryMethod = "tailscal";
    in
    {
      expr = map evaluates [
        { monitor = mistyped; }
        {
          monitor = mistyped;
          backup = { };
        }
      ];
      expected = [
        false
        true
      ];
    };

  # Linux allows 15 characters; the whole firewall would not start.
  test_a_name_that_is_no_interface = refuses "invalid interface name 'wg-of-the-home-lab'" (
    on "db" { m.exporter.db.firewallInterfaces = [ "wg-of-the-home-lab" ]; }
  );

  # The exporter would serve everybody, or not start.
  test_flags_that_undo_security = {
    expr =
      map
        (
          flags:
          only
            "services.prometheus.exporters.node.extraFlags must have --web.config.file once, from instances.m"
            (
              t.failed (
                member "db" { m.exporter.db = secured; } (with_ {
                  services.prometheus.exporters.node.extraFlags = flags;
                })
              )
            )
        )
        [
          (lib.mkForce [ "--no-collector.wifi" ])
          [ "--web.config.file=/etc/web.yml" ]
          [ "--no-collector.wifi" ]
        ];
    expected = [
      "services.prometheus.exporters.node.extraFlags must have --web.config.file once, from instances.m"
      "services.prometheus.exporters.node.extraFlags must have --web.config.file once, from instances.m"
      [ ]
    ];
  };

  # Every scraper refuses two kinds of credentials; VictoriaMetrics and Alloy only when they start.
  test_credentials_beside_a_password = {
    expr =
      let
        config = onMonitor (
          one
            {
              backend = "victoriametrics";
              jobs.systemd.authorization.credentials_file = "/run/secrets/token";
              securityFiles = {
                ca = "/run/secrets/ca";
                password = "/run/secrets/password";
              };
            }
            {
              db = secured;
            }
        );
      in
      only "jobs.systemd.authorization: exporters of this type have `security` \"basic-auth\"" (
        t.failed config
      );
    expected = "jobs.systemd.authorization: exporters of this type have `security` \"basic-auth\"";
  };

  # Without brackets it would not start.
  test_victoriametrics_listens_on_an_ipv6_address = {
    expr =
      (onMonitor (alone {
        backend = "victoriametrics";
        listenAddress = "fd00::1";
      })).services.victoriametrics.listenAddress;
    expected = "[fd00::1]:8428";
  };

  # NixOS's firewall takes it for every interface, in place of the machine's own ports.
  test_a_name_that_means_every_interface =
    let
      db = on "db" { m.exporter.db.firewallInterfaces = [ "default" ]; };
    in
    {
      expr = {
        failed = map (lib.hasInfix "invalid interface name 'default'") (t.failed db);
        open = db.networking.firewall.interfaces;
      };
      expected = {
        failed = [ true ];
        open = { };
      };
    };

  # Settings that nobody would read
  test_a_setting_of_the_machine_in_one_exporter =
    refuses "exporters.node.listen is not read: it is a setting of the machine, beside `exporters`"
      (
        on "db" {
          m.exporter.db = shut // {
            exporters.node.listen = "internal";
          };
        }
      );
  test_a_setting_of_no_exporter =
    warns
      "machines.db.settings: ignored, because `exporterType` is not set: port, securty, enable: write them in exporters.<type>"
      (
        on "db" {
          m.exporter.db = shut // {
            exporters.node = { };
            securty = "tls";
            port = 9999;
            enable = false;
          };
        }
      );

  test_a_key_of_oauth2_in_the_store =
    refuses "jobs.node.oauth2.tls_config.key: is a secret, and everybody can read the store"
      (onMonitor (one { jobs.node.oauth2.tls_config.key = "secret"; } { db = { }; }));

  # Settings that would fail later: one assertion each, with the path and the fix

  test_refuses_a_job_of_the_users_with_our_name =
    refuses "monitor: more than one scrape config is named 'node'"
      (onMonitor (one { additionalScrapeConfigs = [ { job_name = "node"; } ]; } { db = { }; }));

  test_refuses_a_job_of_two_instances_and_names_both =
    refuses
      "'mine' (in instances.a.roles.server.machines.monitor.settings and instances.b.roles.server.machines.monitor.settings)"
      (onMonitor {
        a.server.monitor = shut // {
          additionalScrapeConfigs = [ { job_name = "mine"; } ];
        };
        b.server.monitor = shut // {
          additionalScrapeConfigs = [ { job_name = "mine"; } ];
        };
      });

  test_refuses_two_exporters_on_one_port =
    refuses "db: port 9100 is used by node (a) and systemd (b)"
      (
        on "db" {
          a.exporter.db = shut;
          b.exporter.db = shut // {
            exporterType = "systemd";
            port = 9100;
          };
        }
      );

  test_refuses_two_ports_of_one_exporter =
    refuses "node has port 9100 in instance a and port 9200 in instance b"
      (
        on "db" {
          a.exporter.db = shut;
          b.exporter.db = shut // {
            port = 9200;
          };
        }
      );

  test_refuses_a_type_given_twice = refuses "node is set by `exporterType` and by `exporters.node`" (
    on "db" {
      m.exporter.db = shut // {
        exporterType = "node";
        exporters.node = { };
      };
    }
  );

  test_refuses_an_unknown_type = refuses "unknown exporter type 'nodee' without a `port`" (
    on "db" {
      m.exporter.db = shut // {
        exporterType = "nodee";
      };
    }
  );

  test_refuses_an_unknown_type_at_the_server =
    refuses "machines.db.settings: unknown exporter type 'nodee'"
      (onMonitor (one { } { db.exporterType = "nodee"; }));

  # Of a machine that is server and exporter.
  test_refuses_a_mistake_once = {
    expr =
      map
        (
          settings:
          map (lib.removePrefix "clan-discovery: instances.m.roles.exporter.machines.monitor.settings") (
            t.failed (member "monitor" (one { } { monitor = settings; }) { tailscale = false; })
          )
        )
        [
          (shut // { exporterType = "nodee"; })
          { port = 0; }
          {
            exporters.node = {
              enable = false;
              exporterType = "nginx";
            };
          }
        ];
    expected = [
      [
        ": unknown exporter type 'nodee' without a `port`: use a name of services.prometheus.exporters, or set `port`"
      ]
      [ ": invalid port 0: must be 1 to 65535" ]
      [ ": exporters.node.exporterType does not belong here: the type is 'node'" ]
    ];
  };

  test_refuses_a_role_without_a_machine = refuses "instances.m.roles.exporter has no machine" (
    onMonitor (one { } { })
  );

  test_refuses_a_server_role_without_a_machine = refuses "instances.m.roles.server has no machine" (
    on "db" {
      m.exporter.db = shut;
      m.server = { };
    }
  );

  test_refuses_a_member_that_is_no_machine =
    refuses "instances.m.roles.exporter.machines.wep: the clan has no machine 'wep'"
      (onMonitor (one { } { wep = { }; }));

  test_refuses_a_target_that_is_none = refuses "staticTargets.node: 'http://x:1/' is no target" (
    onMonitor (one { staticTargets.node = [ "http://x:1/" ]; } { db = { }; })
  );

  # The machine's own settings may set the target of a probe, and the port of an unknown job.
  test_the_config_completes_a_target = {
    expr = t.failed (
      member "monitor"
        (one {
          staticTargets.blackbox = [ "10.0.0.9:9115" ];
          staticTargets.snmp = [ "10.0.0.9:9116" ];
          staticTargets.own = [ "10.0.0.9" ];
        } { db = { }; })
        (with_ {
          services.clan-discovery.settings.exporters = {
            blackbox.params.target = "https://example.org";
            own.port = 1234;
          };
          services.clan-discovery.settings.jobs.snmp.params.target = [ "10.0.0.1" ];
        })
    );
    expected = [ ];
  };

  test_refuses_static_mode_beside_a_method =
    refuses
      "services.clan-discovery.mode is \"static\" on monitor, which asks no backend, but discoveryMethod of the instances m has tailscale"
      (
        member "monitor" (one { discoveryMethod = "tailscale"; } { db = { }; }) (with_ {
          services.clan-discovery.mode = "static";
        })
      );

  test_refuses_two_backends =
    refuses "with the backends prometheus, victoriametrics: use one backend"
      (onMonitor {
        a.server = server { };
        b.server = server { backend = "victoriametrics"; };
      });

  test_refuses_settings_that_the_backend_does_not_have =
    refuses "the backend victoriametrics has no setting rules, webExternalUrl"
      (onMonitor {
        m.server = server {
          backend = "victoriametrics";
          rules = [ "x" ];
          webExternalUrl = "y";
        };
      });

  test_refuses_vmagent_without_a_destination =
    refuses "vmagent stores nothing: set remoteWrite"
      (onMonitor {
        m.server = server { backend = "vmagent"; };
      });

  test_refuses_settings_of_a_destination = refuses "only `url` is supported for vmagent" (onMonitor {
    m.server = server {
      backend = "vmagent";
      remoteWrite = [
        {
          url = "x";
          basic_auth = { };
        }
      ];
    };
  });

  test_refuses_shares_of_different_targets = refuses "monitor, spare share their targets" (onMonitor {
    m.server =
      server {
        sharding = "hashmod";
        staticTargets.node = [ "a:1" ];
      }
      // {
        spare = shut // {
          sharding = "hashmod";
        };
      };
  });

  test_a_share_of_two_instances_with_the_same_targets = {
    expr =
      let
        shared.monitor = shut // {
          sharding = "hashmod";
        };
      in
      t.failed (onMonitor {
        a.server = shared // {
          spare = shared.monitor;
        };
        b.server = shared;
      });
    expected = [ ];
  };

  test_refuses_shares_of_different_backends =
    refuses "monitor, spare share their targets"
      (onMonitor {
        m.server = server { sharding = "hashmod"; } // {
          spare = shut // {
            sharding = "hashmod";
            backend = "victoriametrics";
          };
        };
      });

  test_refuses_instances_that_differ =
    refuses "which differ in port, retentionTime: set these in a only"
      (onMonitor {
        a.server = server { retentionTime = "1d"; };
        b.server = server {
          port = 9091;
          retentionTime = "2d";
        };
      });

  # Lists are concatenated, and an option that only the first one sets applies.
  test_refuses_a_policy_of_the_second_instance =
    refuses "which differ in policy, webExternalUrl"
      (onMonitor {
        a.server = server {
          port = 9091;
          rules = [ "x" ];
        };
        b.server = server {
          webExternalUrl = "x";
          policy.max_age = "2d";
          rules = [ "y" ];
        };
      });

  test_refuses_a_snapshot_of_the_second_instance = refuses "which differ in snapshot" (onMonitor {
    a.server = server { };
    b.server = server { snapshot = ../../examples/homelab/expected/targets.nix; };
  });

  test_refuses_an_exporter_on_the_servers_port =
    refuses "monitor: port 9090 is used by node (m) and the server (m)"
      (
        onMonitor (
          one { } {
            monitor = shut // {
              port = 9090;
            };
          }
        )
      );

  # On the server, and on the machine of the exporter.
  test_refuses_settings_that_python_refuses = {
    expr =
      let
        place = "clan-discovery: instances.m.roles.exporter.machines.db.settings: ";
        ofExporter =
          case:
          map
            (name: only "${place}${case.says}" (t.failed (on name (one { } { db = shut // case.settings; }))))
            [
              "monitor"
              "db"
            ];
        ofServer =
          case:
          lib.head (
            t.failed (onMonitor {
              m.server = server case.settings;
            })
          );
        unlike =
          case: expected: found:
          lib.optional (found != expected) { inherit case found; };
        cases = import ./refused.nix;
      in
      lib.concatMap (
        case: unlike case (lib.genList (_: "${place}${case.says}") 2) (ofExporter case)
      ) cases.exporter
      ++ lib.filter (found: found != null) (
        map (case: if lib.hasInfix case.says (ofServer case) then null else ofServer case) cases.server
      );
    expected = [ ];
  };

  test_refuses_web_with_a_snapshot =
    refuses "web.enable and verifyInterval cannot be used with a snapshot"
      (onMonitor {
        m.server = server {
          snapshot = ../../examples/homelab/expected/targets.nix;
          web.enable = true;
          verifyInterval = "5m";
        };
      });

  test_refuses_to_verify_alloy =
    refuses "monitor: verifyInterval is set, but alloy cannot be asked for its targets"
      (
        member "monitor"
          (alone {
            backend = "alloy";
            forwardTo = [ "prometheus.remote_write.x.receiver" ];
            verifyInterval = "5m";
          })
          (with_ {
            systemd.services.alloy.serviceConfig.ExecStart = "alloy run /etc/alloy ";
          })
      );

  test_refuses_the_web_of_the_second_instance =
    refuses "which differ in verifyInterval, web"
      (onMonitor {
        a.server = server { };
        b.server = server {
          verifyInterval = "5m";
          web.enable = true;
        };
      });

  test_refuses_an_exporter_on_the_port_of_web =
    refuses "monitor: port 9100 is used by node (m) and services.clan-discovery.settings.web.listen (m)"
      (
        onMonitor (
          one {
            web = {
              enable = true;
              listen = "127.0.0.1:9100";
            };
          } { monitor = shut; }
        )
      );

  test_refuses_web_on_the_port_of_the_server =
    refuses
      "monitor: port 9090 is used by the server (m) and services.clan-discovery.settings.web.listen (m)"
      (
        onMonitor (alone {
          web = {
            enable = true;
            listen = "127.0.0.1:9090";
          };
        })
      );

  # Web, and the scraper that `verify` asks

  # Without a method, too: somebody must serve.
  test_web_starts_a_unit = {
    expr =
      let
        config = onMonitor (
          one {
            web = {
              enable = true;
              openFirewall = true;
              listen = "100.64.0.7:9942";
              allow = [ "tag:admin" ];
              links.Node = "https://example.org/{machine}";
            };
            verifyInterval = "5m";
          } { db = { }; }
        );
      in
      {
        failed = t.failed config;
        inherit (discovery config) mode network verifyInterval;
        inherit ((discovery config).settings) web;
        ports = ports config;
      };
    expected = {
      failed = [ ];
      mode = "resident";
      network = true;
      verifyInterval = "5m";
      web = {
        listen = "100.64.0.7:9942";
        allow = [ "tag:admin" ];
        links.Node = "https://example.org/{machine}";
      };
      ports.tailscale0 = [ 9942 ];
    };
  };

  test_verify_asks_the_servers_own_scraper = {
    expr =
      let
        of =
          settings: module:
          lib.mapAttrs (_: program: program.url) (
            (discovery (
              member "monitor" (alone settings) (with_ {
                services = module;
              })
            )).settings.verify.scrapers or { }
          );
      in
      [
        (of { } { })
        (of { enableAgentMode = true; } { })
        (of {
          port = 9091;
          listenAddress = "100.64.0.7";
          webExternalUrl = "https://home.arpa/prometheus/";
        } { })
        (of {
          listenAddress = "[::]";
          webExternalUrl = "https://home.arpa/prometheus/";
          extraFlags = [ "--web.route-prefix=/" ];
        } { })
        (of {
          extraFlags = [ "--web.external-url=https://home.arpa/prometheus/" ];
        } { })
        (of {
          webExternalUrl = "https://home.arpa/prometheus/";
          extraFlags = [
            "--web.route-prefix"
            "/a"
          ];
        } { })
        (of { extraFlags = [ "--web.enable-lifecycle --web.route-prefix /b" ]; } { })
        (of { listenAddress = "fd00::1"; } { })
        (of { backend = "victoriametrics"; } { })
        (of { backend = "victoriametrics"; } {
          victoriametrics = {
            listenAddress = "[::1]:1234";
            extraOptions = [ "-http.pathPrefix=/vm" ];
          };
        })
        (of { backend = "vmagent"; } { })
        (of {
          backend = "vmagent";
          port = 1234;
        } { })
        (of { backend = "alloy"; } { })
        (of { } { clan-discovery.settings.verify.scrapers.prometheus.url = "https://x"; })
        (of { snapshot = ../../examples/homelab/expected/targets.nix; } { })
      ];
    expected = [
      { prometheus = "http://127.0.0.1:9090"; }
      { prometheus = "http://127.0.0.1:9090"; }
      { prometheus = "http://100.64.0.7:9091/prometheus"; }
      { prometheus = "http://[::1]:9090"; }
      { prometheus = "http://127.0.0.1:9090/prometheus"; }
      { prometheus = "http://127.0.0.1:9090/a"; }
      { prometheus = "http://127.0.0.1:9090/b"; }
      { prometheus = "http://[fd00::1]:9090"; }
      { victoriametrics = "http://127.0.0.1:8428"; }
      { victoriametrics = "http://[::1]:1234/vm"; }
      { vmagent = "http://127.0.0.1:8429"; }
      { vmagent = "http://127.0.0.1:1234"; }
      { }
      { prometheus = "https://x"; }
      { }
    ];
  };

  # Only its operator knows the password.
  test_a_scraper_that_asks_for_a_password = {
    expr =
      map
        (
          { settings, module }:
          let
            config = member "monitor" (alone settings) (with_ {
              services = module;
            });
          in
          {
            warnings = map (
              text: lib.head (lib.splitString ":" (lib.removePrefix "clan-discovery: monitor: " text))
            ) config.warnings;
            inherit ((discovery config).settings) verify;
          }
        )
        [
          {
            settings = { };
            module.prometheus.webConfigFile = "/run/web.yml";
          }
          {
            settings.extraFlags = [ "--web.config.file=/run/web.yml" ];
            module.clan-discovery.settings.verify.scrapers.own.url = "https://x";
          }
          {
            settings.backend = "victoriametrics";
            module.victoriametrics.extraOptions = [ "-httpAuth.username=x" ];
          }
          {
            settings.backend = "vmagent";
            module.vmagent.remoteWrite.url = "x";
            module.vmagent.extraArgs = [ "--tls" ];
          }
        ];
    expected =
      let
        flags = "its flags -httpAuth and -tls make it ask for a password or for TLS";
      in
      [
        {
          warnings = [
            "`verify` does not ask prometheus, because services.prometheus.webConfigFile makes it ask for a password or for TLS"
          ];
          verify = null;
        }
        {
          warnings = [ ];
          verify.scrapers.own.url = "https://x";
        }
        {
          warnings = [ "`verify` does not ask victoriametrics, because ${flags}" ];
          verify = null;
        }
        {
          warnings = [ "`verify` does not ask vmagent, because ${flags}" ];
          verify = null;
        }
      ];
  };

  # Warnings of a server

  test_a_server_that_listens_elsewhere = warns "port 9090, but this one listens on 9999" (
    member "monitor" { m.server.monitor.firewallInterfaces = [ "wg0" ]; } (with_ {
      services.prometheus.port = 9999;
    })
  );

  test_the_port_of_a_server_that_listens_elsewhere = {
    expr = ports (
      member "monitor" { m.server.monitor.firewallInterfaces = [ "wg0" ]; } (with_ {
        services.prometheus.port = 9999;
      })
    );
    expected.wg0 = [ 9999 ];
  };

  # A tailscaled that NixOS did not start may run.
  # A job without targets in the snapshot would be lost silently. A job of the user is scraped anyway.
  test_a_snapshot_without_a_job = warns "snapshot has no job node, prometheus" (
    onMonitor (
      one {
        snapshot = ../data/snapshot-additional.json;
        additionalScrapeConfigs = [ { job_name = "own"; } ];
      } { db = { }; }
    )
  );

  test_tailscale_that_is_off = warns "services.tailscale.enable is false" (
    member "monitor" (alone { discoveryMethod = "tailscale"; }) { tailscale = false; }
  );

  test_tailscale_that_is_on = {
    expr =
      (onMonitor (alone {
        discoveryMethod = "tailscale";
      })).warnings;
    expected = [ ];
  };

  # clan-core here has no vars, so every file is the user's. The other tests of `security` are in tests/nixos.
  test_security_with_files_of_the_user = {
    expr = map (
      backend:
      let
        config = onMonitor (
          one {
            inherit backend;
            remoteWrite = lib.optional (backend == "vmagent") { url = "http://store"; };
            securityFiles = {
              ca = ../data/snapshot.json;
              password = "/run/secrets/password";
            };
          } { monitor = secured; }
        );
        units = config.systemd.services;
        scraped =
          if backend == "prometheus" then
            jobsOf config
          else
            config.services.${backend}.prometheusConfig.scrape_configs;
      in
      {
        failed = t.failed config;
        jobs = map (job: removeAttrs job [ "file_sd_configs" ]) scraped;
        scraper = units.${backend}.serviceConfig.LoadCredential;
        node = units.prometheus-node-exporter.serviceConfig.LoadCredential;
        flags = map (name: config.services.prometheus.exporters.${name}.extraFlags) [
          "node"
          "systemd"
          "redis"
        ];
      }
    ) backendNames;
    expected = map (backend: {
      failed = [ ];
      jobs = [
        { job_name = "prometheus"; }
        {
          job_name = "node";
          tls_config = {
            ca_file = "/run/credentials/${backend}.service/clan-ca";
            server_name = "prometheus-exporter";
          };
        }
        { job_name = "redis"; }
        {
          job_name = "systemd";
          basic_auth = {
            username = "prometheus";
            password_file = "/run/credentials/${backend}.service/clan-password";
          };
        }
      ];
      scraper = [
        "clan-ca:${../data/snapshot.json}"
        "clan-password:/run/secrets/password"
      ];
      node = [
        "web.crt:/run/secrets/crt"
        "web.key:/run/secrets/key"
      ];
      flags = [
        [ "--web.config.file=/run/credentials/prometheus-node-exporter.service/web.yml" ]
        [ "--web.config.file=/run/credentials/prometheus-systemd-exporter.service/web.yml" ]
        [ ]
      ];
    }) backendNames;
  };

  # On the server or on the machine of the exporter.
  test_refuses_security_that_cannot_work = {
    expr = map (
      case:
      only case.says (
        t.failed (
          on case.machine or "db" (
            one (case.server or { }) ({ db = shut // case.settings; } // case.others or { })
          )
        )
      )
    ) insecure;
    expected = map (case: case.says) insecure;
  };

  test_refuses_instances_of_different_security =
    refuses
      "instances.a.roles.exporter.machines.db.settings.security and instances.b.roles.exporter.machines.db.settings.security differ for node"
      (
        on "db" {
          a.exporter.db = secured;
          b.exporter.db = shut;
        }
      );

  # With vars, own files are all of them or none.
  test_refuses_a_part_of_the_files =
    refuses "machines.db.settings.securityFiles: set certificate, too"
      (
        member "db"
          {
            m.exporter.db = shut // {
              security = "tls";
              securityFiles.key = "/run/secrets/key";
            };
          }
          (with_ {
            options.clan.core.vars = lib.mkOption { type = lib.types.raw; };
          })
      );

  test_refuses_files_of_the_second_instance = refuses "which differ in securityFiles" (onMonitor {
    a.server = server { };
    b.server = server { securityFiles.password = "/run/secrets/password"; };
  });

  # Ports with metrics are open, as those of exporters; the server has their jobs.
  test_exposed_services =
    let
      instances = one { } {
        db = {
          firewallInterfaces = [ "wg0" ];
          expose = {
            films = {
              port = 8096;
              type = "jellyfin";
              front.domain = "films";
            };
            photos = {
              port = 2283;
              metrics = false;
              front.domain = "photos";
            };
            redis = {
              port = 9121;
              loopback = true;
            };
          };
        };
        monitor = shut // {
          expose.grafana = {
            port = 3000;
            loopback = true;
          };
        };
      };
      db = on "db" instances;
      monitor = onMonitor instances;
    in
    {
      expr = {
        inherit (t.seen db) failed interfaces warnings;
        jobs = lib.filter (job: job != "prometheus") monitor.services.clan-discovery.jobs;
      };
      expected = {
        failed = [ ];
        warnings = [ ];
        interfaces.wg0.allowedTCPPorts = [
          8096
          9100
        ];
        jobs = [
          "grafana"
          "jellyfin"
          "node"
        ];
      };
    };

  test_refuses_an_exposed_service_on_the_port_of_an_exporter =
    refuses "db: port 9100 is used by node (m) and films (m)"
      (
        on "db" (
          one { } {
            db = shut // {
              expose.films.port = 9100;
            };
          }
        )
      );
}
