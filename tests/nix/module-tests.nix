# The NixOS module under evalModules: the config, when the build checks or renders it, and each assertion.
{ nixpkgsLib }:
let
  t = import ./machine.nix { inherit nixpkgsLib; };
  inherit (t) lib;
  package = "/nix/store/00000000000000000000000000000000-clan-discovery";

  nixos =
    options:
    t.nixos [
      ../../nix/nixos
      {
        services.clan-discovery = lib.mkMerge [
          { enable = true; }
          options
        ];
      }
    ];
  list.settings.backends.static.lab.targets.node = [ "10.0.0.5:9100" ];
  listed =
    options:
    nixos (
      lib.mkMerge [
        list
        options
      ]
    );
  etc = name: config: config.environment.etc."clan-discovery/${name}".source;
  checks =
    config: lib.hasInfix "clan-discovery check --config /nix/store/" (etc "config.json" config);
  service = config: config.systemd.services.clan-discovery;
  private = config: (service config).serviceConfig.PrivateNetwork or false;

  only =
    part: messages:
    if lib.length messages == 1 && lib.hasInfix part (lib.head messages) then part else messages;
  refuses = part: config: {
    expr = only "services.clan-discovery.${part}" (t.failed config);
    expected = "services.clan-discovery.${part}";
  };
in
{
  test_the_build_checks_the_config = {
    expr = map checks [
      (nixos list)
      (listed { checkConfig = false; })
      # A build cannot read a file that exists only at run time.
      (nixos { settings.inventory.file = "/var/lib/clan/inventory.json"; })
      (nixos { settings.inventory.file = builtins.storeDir + "/x-inventory.json"; })
    ];
    expected = [
      true
      false
      false
      true
    ];
  };

  # `tests/test_units.py` runs the units of unit.nix in systemd.
  test_the_unit_is_the_one_that_systemd_ran = {
    expr =
      let
        direct =
          (import ./unit.nix {
            program = package;
            config = "CONFIG";
            mode = "resident";
            watchdog = "1s";
          }).service;
        plain =
          unit:
          unit
          // {
            serviceConfig = removeAttrs unit.serviceConfig [
              "ExecStart"
              "ExecReload"
            ];
          };
        unit = service (listed {
          mode = "resident";
          watchdog = "1s";
          metrics.scrape = "none";
        });
      in
      [
        (plain unit == plain direct)
        (lib.hasPrefix "${package}/bin/clan-discovery run --config " unit.serviceConfig.ExecStart)
      ];
    expected = [
      true
      true
    ];
  };

  # Node exporter must run the collector, and read the directory once.
  test_node_exporter_that_does_not_read_the_metrics =
    let
      of =
        node:
        let
          config = t.nixos [
            ../../nix/nixos
            {
              networking.hostName = "monitor";
              services.clan-discovery = {
                enable = true;
                settings.backends.tailscale.t = { };
                settings.exporters.node.select = { };
              };
              services.prometheus.exporters.node = node // {
                enable = true;
              };
            }
          ];
          says = part: messages: lib.any (lib.hasInfix part) messages;
        in
        [
          (says "no scraper reads the metrics of the unit on monitor" config.warnings)
          (says "add \"textfile\" to enabledCollectors" config.warnings)
          (says "extraFlags has /var/lib/clan-discovery/metrics twice" (t.failed config))
        ];
      only = map (one: map (number: number == one) (lib.range 1 3));
    in
    {
      expr = map of [
        { }
        { disabledCollectors = [ "textfile" ]; }
        { extraFlags = [ "--collector.disable-defaults" ]; }
        {
          extraFlags = [ "--collector.disable-defaults" ];
          enabledCollectors = [ "textfile" ];
        }
        { extraFlags = [ "--collector.textfile.directory /var/lib/clan-discovery/metrics" ]; }
      ];
      # None, unread, off, none, twice.
      expected = only [
        0
        1
        2
        0
        3
      ];
    };

  # A socket needs no network. DNS, metrics, and an inventory with an unknown method do.
  test_the_unit_has_a_network_where_it_needs_one = {
    expr = map private [
      (nixos {
        settings.exporters.node.select = { };
        settings.backends.tailscale.t = { };
      })
      (nixos list)
      (listed { settings.backends.dns.lan.domain = "lan"; })
      (listed {
        mode = "resident";
        metrics.listen = "127.0.0.1:1";
      })
      (listed {
        mode = "resident";
        settings.web = { };
      })
      (listed {
        mode = "resident";
        verifyInterval = "5m";
      })
      (nixos { settings.inventory.file = "/x.json"; })
      (nixos {
        network = false;
        settings.inventory.file = "/x.json";
      })
    ];
    expected = [
      true
      true
      false
      false
      false
      false
      false
      true
    ];
  };

  test_web_serves_the_metrics_where_it_is_on_loopback = {
    expr =
      map
        (
          web:
          let
            config = listed {
              mode = "resident";
              settings = { inherit web; };
            };
            arguments = lib.splitString " " (service config).serviceConfig.ExecStart;
          in
          [
            config.services.clan-discovery.metrics.listen
            (lib.elem "--metrics-listen" arguments)
          ]
        )
        [
          null
          { }
          { listen = "[::1]:1234"; }
          { listen = "100.64.0.7:9942"; }
        ];
    expected = [
      [
        "127.0.0.1:9199"
        true
      ]
      [
        "127.0.0.1:9942"
        false
      ]
      [
        "[::1]:1234"
        false
      ]
      [
        "127.0.0.1:9199"
        true
      ]
    ];
  };

  test_the_unit_asks_the_programs_of_verify = {
    expr =
      lib.hasInfix " --verify-interval 5m"
        (service (listed {
          mode = "resident";
          verifyInterval = "5m";
        })).serviceConfig.ExecStart;
    expected = true;
  };

  test_the_port_of_web_is_open_on_the_tailnet_only = {
    expr =
      map
        (
          options:
          (listed (
            lib.recursiveUpdate {
              mode = "resident";
              settings.web.listen = "100.64.0.7:9942";
            } options
          )).networking.firewall.interfaces
        )
        [
          { }
          { openFirewall = true; }
          {
            openFirewall = true;
            settings.web.listen = "127.0.0.1:9942";
          }
        ];
    expected = [
      { }
      { tailscale0.allowedTCPPorts = [ 9942 ]; }
      { }
    ];
  };

  test_web_and_verify_that_cannot_work = {
    expr =
      map (options: map (lib.removePrefix "services.clan-discovery.") (t.failed (listed options)))
        [
          { settings.web = { }; }
          {
            mode = "resident";
            network = false;
            metrics.scrape = "none";
            settings.web = { };
            verifyInterval = "5m";
          }
          { verifyInterval = "5m"; }
          {
            mode = "resident";
            settings.web.listen = "100.64.0.7:443";
          }
          {
            mode = "resident";
            settings.web = { };
            settings.output.files = false;
          }
          {
            mode = "resident";
            openFirewall = true;
          }
          {
            mode = "resident";
            openFirewall = true;
            settings.web = { };
          }
          {
            mode = "resident";
            interval = "30";
            verifyInterval = "5min";
          }
          {
            mode = "resident";
            interval = "1d";
            verifyInterval = "9s";
          }
          {
            settings.verify = {
              scrapers.prometheus = {
                url = "http://127.0.0.1:9090";
                bearer_token_file = builtins.storeDir + "/00000000000000000000000000000000-token";
              };
              grafana.main.basic_auth.password = "x";
              timeout = "5s";
            };
          }
        ];
    expected =
      let
        off = "openFirewall opens a port on the interface of Tailscale, but services.tailscale.enable is false: enable it, or remove openFirewall";
      in
      [
        [ "settings.web needs the resident mode: set `mode = \"resident\"`, or remove it" ]
        [
          "settings.web needs the network: set `network` to true, or remove it"
          "verifyInterval needs the network: set `network` to true, or remove it"
        ]
        [ "verifyInterval needs the resident mode: set `mode = \"resident\"`, or remove it" ]
        [
          "settings.web.listen is 100.64.0.7:443, but the unit cannot listen on a port below 1024: set another port, and let a proxy listen on 443"
        ]
        [
          "settings.output.files is false, but `scrapeConfigs` read the target files, which would be missing or old: remove it (`settings.web` serves the targets beside the files)"
        ]
        [
          "openFirewall is set, but settings.web is not: set settings.web, or remove it"
          off
        ]
        [
          "openFirewall is set, but settings.web.listen is 127.0.0.1:9942, which no other machine can reach: set an address of the tailnet, or remove openFirewall"
          off
        ]
        [
          "interval: '30' is no duration from 1s to 1d: write for example 5m or 1h30m"
          "verifyInterval: '5min' is no duration from 10s to 1d: write for example 5m or 1h30m"
        ]
        [ "verifyInterval: '9s' is no duration from 10s to 1d: write for example 5m or 1h30m" ]
        [
          "settings.verify.grafana.main.basic_auth.password: is a secret, and everybody can read the store: put it in a file, and set `basic_auth.password_file`"
          "settings.verify.scrapers.prometheus.bearer_token_file: ${builtins.storeDir}/00000000000000000000000000000000-token is, or would be copied, in the Nix store, which everybody can read: write a path on the machine as a string, for example \"/run/secrets/prometheus\""
        ]
      ];
  };

  test_web_in_userspace_networking = {
    expr =
      map
        (
          listen:
          t.failed (
            t.nixos [
              ../../nix/nixos
              {
                services.tailscale.interfaceName = "userspace-networking";
                services.clan-discovery = lib.mkMerge [
                  list
                  {
                    enable = true;
                    mode = "resident";
                    settings.web = { inherit listen; };
                  }
                ];
              }
            ]
          )
        )
        [
          "127.0.0.1:9942"
          "100.64.0.7:9942"
        ];
    expected = [
      [ ]
      [
        "services.clan-discovery.settings.web.listen is 100.64.0.7:9942, but in userspace networking tailscaled has no interface to listen on: set services.tailscale.interfaceName, or listen on loopback and read docs/http.md#who-may-read"
      ]
    ];
  };

  # Both the clan service and the machine may import the module.
  test_two_modules_with_one_key_are_one = {
    expr =
      let
        assertions =
          imports:
          lib.length
            (t.nixos [
              {
                inherit imports;
                services.clan-discovery = list // {
                  enable = true;
                };
              }
            ]).assertions;
      in
      assertions [
        ../../nix/nixos
        (import ../../nix/nixos)
      ] == assertions [ ../../nix/nixos ];
    expected = true;
  };

  test_labels_that_the_program_refuses = {
    expr = t.failed (listed {
      settings = {
        inventory.file = "/x.json";
        labels = {
          "a-b" = "x";
          site = "home";
        };
        exporters.node.labels = {
          job = "x";
          __scrape_interval__ = "1m";
        };
        exporters.systemd.labels = null;
      };
    });
    expected = [
      "services.clan-discovery.settings.labels: the label 'a-b' cannot be set: it is no label name, or not yours to give"
      "services.clan-discovery.settings.exporters.node.labels: the label 'job' cannot be set: it is no label name, or not yours to give"
      "services.clan-discovery.settings.exporters.node.labels: __scrape_interval__ and __scrape_timeout__ come together: set both"
    ];
  };

  test_limits_that_no_rule_reads = {
    expr = t.failed (listed {
      settings = {
        inventory.file = "/x.json";
        limits = {
          default.disk_procent = 85;
          tags.storage = {
            disk_percent = 95;
            cpu_percent = 101;
          };
          machines.nas.memory_percent = "90";
        };
      };
    });
    expected = [
      "services.clan-discovery.settings.limits.default.disk_procent: no alert rule reads a limit of this name: did you mean 'disk_percent'?"
      "services.clan-discovery.settings.limits.tags.storage.cpu_percent: must be at most 100, not 101"
      "services.clan-discovery.settings.limits.machines.nas.memory_percent: must be a number"
    ];
  };

  # Type errors name the option.
  test_values_of_labels_that_the_program_refuses = {
    expr =
      map
        (
          labels:
          (builtins.tryEval (
            builtins.deepSeq
              (nixos {
                settings.inventory.file = "/x.json";
                settings.exporters.node.labels = labels;
              }).services.clan-discovery.settings.exporters
              true
          )).success
        )
        [
          { a = "x"; }
          null
          { a = 1; }
          { a = null; }
          { a = [ "x" ]; }
          { a = true; }
          "x"
        ];
    expected = [
      true
      true
      false
      false
      false
      false
      false
    ];
  };

  test_select_needs_a_backend = {
    expr =
      map
        (
          settings:
          t.failed (nixos {
            inherit settings;
          })
        )
        [
          { exporters.node.select = { }; }
          {
            exporters.node.select = { };
            backends.static.lab.machines.nas = [ "10.0.0.7" ];
          }
          {
            exporters.node.select.backends = [ "lab" ];
            backends.static.lab.machines.nas = [ "10.0.0.7" ];
          }
          {
            exporters.node.select = { };
            backends.tailscale.t = { };
          }
          {
            exporters.node.select = { };
            inventory.file = "/x.json";
          }
          { exporters.node.port = 1; }
        ];
    expected =
      let
        none = "services.clan-discovery.settings.exporters.node.select has no Tailscale backend to select from: set settings.backends.tailscale or `select.backends`";
      in
      [
        [ none ]
        [ none ]
        [ ]
        [ ]
        [ ]
        [
          "services.clan-discovery.settings declares nothing: set `inventory.file`, or `exporters.<type>.select` and `backends.tailscale`, or `backends.static`, or `backends.dns`"
        ]
      ];
  };

  test_static_mode_renders_and_runs_nothing = {
    expr =
      let
        config = listed {
          mode = "static";
          jobs = [ "systemd" ];
        };
      in
      {
        failed = t.failed config;
        units = lib.attrNames config.systemd;
        users = config.users;
        renders = lib.hasSuffix " --output $out --only-listed --job node --job systemd\n" (
          etc "targets" config
        );
        # `render` checks the config, too.
        checks = checks config;
        inherit (config.services.clan-discovery.settings.output) directory static;
      };
    expected = {
      failed = [ ];
      units = [ ];
      users = { };
      renders = true;
      checks = false;
      directory = "/etc/clan-discovery/targets";
      static = true;
    };
  };

  # The path of the config changes with each system, so as owner it would lock out the next system.
  test_the_owner_is_the_same_in_each_system = {
    expr =
      lib.concatMap
        (
          mode:
          map (config: config.services.clan-discovery.settings.output.owner) [
            (listed { inherit mode; })
            (listed {
              inherit mode;
              settings.labels.site = "home";
            })
          ]
        )
        [
          "static"
          "timer"
          "resident"
        ];
    expected = lib.genList (_: "services.clan-discovery") 6;
  };

  test_the_scrape_config_of_a_split_job_matches_all_its_files = {
    expr =
      map
        (
          split:
          map (job: (lib.head job.file_sd_configs).files)
            (listed { settings.output = { inherit split; }; }).services.clan-discovery.scrapeConfigs
        )
        [
          1
          64
          { node = 2; }
          { other = 2; }
        ];
    expected = [
      [ [ "/var/lib/clan-discovery/targets/node.json" ] ]
      [ [ "/var/lib/clan-discovery/targets/node.*.json" ] ]
      [ [ "/var/lib/clan-discovery/targets/node.*.json" ] ]
      [ [ "/var/lib/clan-discovery/targets/node.json" ] ]
    ];
  };

  test_the_name_of_an_owner_is_one_line = {
    expr =
      map
        (
          owner:
          (builtins.tryEval
            (listed { settings.output = { inherit owner; }; }).services.clan-discovery.settings.output.owner
          ).success
        )
        [
          "monitoring here"
          ""
          "a\nb"
          (lib.concatStrings (lib.genList (_: "x") 201))
        ];
    expected = [
      true
      false
      false
      false
    ];
  };

  test_scrape_configs_name_the_files = {
    expr =
      map
        (
          mode:
          (listed {
            inherit mode;
            jobs = [ "systemd" ];
          }).services.clan-discovery.scrapeConfigs
        )
        [
          "static"
          "timer"
        ];
    expected =
      let
        jobs =
          directory: more:
          map
            (name: {
              job_name = name;
              file_sd_configs = [ ({ files = [ "${directory}/${name}.json" ]; } // more) ];
            })
            [
              "node"
              "systemd"
            ];
      in
      [
        (jobs "/etc/clan-discovery/targets" { refresh_interval = "30s"; })
        (jobs "/var/lib/clan-discovery/targets" { })
      ];
  };

  test_without_enable_there_is_no_scrape_config = {
    expr =
      (nixos {
        enable = lib.mkForce false;
        jobs = [ "node" ];
      }).services.clan-discovery.scrapeConfigs;
    expected = [ ];
  };

  # VictoriaMetrics and vmagent refuse a config with this key.
  test_scrape_configs_for_victoriametrics = {
    expr =
      map (job: lib.attrNames (lib.head job.file_sd_configs))
        (t.cd.victoriametrics (listed { mode = "static"; }).services.clan-discovery.scrapeConfigs)
        .scrape_configs;
    expected = [ [ "files" ] ];
  };

  test_the_route_needs_no_unit = {
    expr =
      map
        (
          mode:
          (listed {
            inherit mode;
            unreachableRoute = true;
          }).systemd.services
            ? clan-discovery-unreachable
        )
        [
          "static"
          "timer"
          "resident"
        ];
    expected = [
      true
      true
      true
    ];
  };

  # The inventory has a blackbox exporter without a target, which makes no job.
  test_a_probe_that_the_settings_give_a_target_is_a_job = {
    expr =
      map (job: job.job_name)
        (listed {
          settings.exporters.blackbox.params.target = "https://example.org";
          settings.exporters.node.port = 9200;
        }).services.clan-discovery.scrapeConfigs;
    expected = [
      "blackbox"
      "node"
    ];
  };

  # Settings that target files contain are not repeated in the scrape config.
  test_scrape_configs_have_the_settings_of_the_jobs = {
    expr =
      let
        config = nixos {
          jobs = [ "systemd" ];
          settings.inventory.file = "/x.json";
          settings.jobs = {
            blackbox.params.target = "https://example.org";
            node.scrape_interval = "30s";
            systemd = {
              scheme = "https";
              metrics_path = "/x";
              basic_auth.username = "prometheus";
              basic_auth.password_file = null;
              params.collect = "cpu";
              params."match[]" = "up";
            };
          };
        };
      in
      map (job: removeAttrs job [ "file_sd_configs" ]) config.services.clan-discovery.scrapeConfigs;
    expected = [
      # The inventory has one without a target, which makes no job.
      { job_name = "blackbox"; }
      {
        job_name = "systemd";
        basic_auth.username = "prometheus";
        params."match[]" = [ "up" ];
      }
    ];
  };

  # A kind of another distribution may list targets, so it is asked.
  test_backends_of_other_kinds = {
    expr =
      let
        other.settings.backends.consul.lab.url = "http://localhost";
      in
      [
        (private (nixos other))
        (t.failed (nixos other))
        (t.failed (nixos (other // { mode = "static"; })))
      ];
    expected = [
      false
      [ ]
      [
        "services.clan-discovery.mode is \"static\", which asks no backend, but settings.backends has consul: set `mode` to \"resident\" or \"timer\""
      ]
    ];
  };

  test_scrape_configs_of_a_snapshot = {
    expr =
      let
        config = t.nixos [
          ../../nix/nixos
          { services.clan-discovery.snapshot = ../data/snapshot.json; }
        ];
      in
      [
        config.services.clan-discovery.scrapeConfigs
        config.environment
        config.systemd
      ];
    expected = [
      [
        {
          job_name = "node";
          static_configs = [
            {
              targets = [ "100.64.0.2:9100" ];
              labels.instance = "db";
            }
          ];
        }
      ]
      { }
      { }
    ];
  };

  test_what_a_snapshot_leaves_out_is_a_warning = {
    expr =
      (t.nixos [
        ../../nix/nixos
        {
          services.clan-discovery = {
            snapshot = ../data/snapshot-additional.json;
            settings.backends.static.lab.targets.nas = [ "nas:9100" ];
            settings.jobs.nas.scrape_interval = "1m";
          };
        }
      ]).warnings;
    expected = [
      "clan-discovery: services.clan-discovery.snapshot has no job nas: write the file again with `clan-discovery snapshot`"
      "clan-discovery: services.clan-discovery.snapshot has the additional scrape config own, which is not used: add `lib.additional` of the snapshot to the scraper"
      "clan-discovery: services.clan-discovery.snapshot is set, so `jobs` of the settings is not used: remove it, or set its keys where the scrape configs are used"
    ];
  };

  # A build cannot run a program of another platform.
  test_a_cross_build_runs_the_builders_package = {
    expr =
      let
        inherit ((t.evaluated [ ])._module.args) pkgs;
        of = name: "/nix/store/00000000000000000000000000000000-${name}";
        runs =
          canExecute: own:
          let
            config = t.nixos [
              ../../nix/nixos
              {
                _module.args.pkgs = lib.mkForce (
                  pkgs
                  // {
                    buildPackages.clan-discovery = of "of-the-builder";
                    buildPackages.runCommand =
                      _: environment: _:
                      toString environment.nativeBuildInputs;
                    stdenv.buildPlatform.canExecute = _: canExecute;
                    stdenv.hostPlatform = { };
                  }
                );
                services.clan-discovery = list // own // { enable = true; };
              }
            ];
          in
          etc "config.json" config;
      in
      [
        (runs true { package = of "own"; })
        (runs false { package = of "own"; })
        (runs false {
          package = of "own";
          buildPackage = of "own-of-the-builder";
        })
      ];
    expected = map (name: "/nix/store/00000000000000000000000000000000-${name}") [
      "own"
      "of-the-builder"
      "own-of-the-builder"
    ];
  };

  test_refuses_nothing_declared = refuses "settings declares nothing" (nixos { });

  test_refuses_an_inventory_without_a_file =
    refuses "settings.inventory needs one of `file`, `flake`, `manifest`, `compose`, `exposed`"
      (nixos {
        settings.inventory = { };
      });

  # The manifest's exporters are jobs, and the build reads it if it is in the store.
  test_service_manifest =
    let
      config =
        manifest:
        nixos {
          settings.inventory.manifest = manifest // {
            exporters.db = [
              "postgres"
              {
                type = "app";
                port = 8080;
              }
            ];
          };
        };
      stored = config { file = builtins.storeDir + "/x-manifest.json"; };
      live = config {
        file = "/var/lib/manifest.json";
        default = [ ];
      };
      jobsOf = one: map (job: job.job_name) one.services.clan-discovery.scrapeConfigs;
    in
    {
      expr = [
        (t.failed stored)
        (map checks [
          stored
          live
        ])
        (lib.subtractLists (jobsOf stored) [
          "app"
          "node"
          "postgres"
        ])
      ];
      expected = [
        [ ]
        [
          true
          false
        ]
        [ ]
      ];
    };

  test_refuses_a_flake = refuses "settings.inventory.flake cannot be evaluated by the unit" (nixos {
    settings.inventory.flake = ".";
  });

  test_refuses_a_flake_in_static_mode =
    refuses "settings.inventory.flake cannot be evaluated by the unit"
      (nixos {
        mode = "static";
        settings.inventory.flake = ".";
      });

  test_refuses_the_targets_of_a_job =
    refuses "settings.jobs.node.file_sd_configs: cannot be set"
      (listed {
        settings.jobs.node.file_sd_configs = [ ];
      });

  test_refuses_files_below_run = refuses "settings.output.directory is /run/targets" (listed {
    settings.output.directory = "/run/targets";
  });

  test_refuses_files_below_tmp = refuses "settings.output.directory is /tmp" (listed {
    settings.output.directory = "/tmp";
  });

  test_refuses_metrics_of_a_timer = refuses "metrics.listen needs the resident mode" (listed {
    metrics.listen = "127.0.0.1:1";
  });

  test_refuses_metrics_without_a_network = refuses "metrics.listen needs the network" (listed {
    mode = "resident";
    network = false;
    metrics.listen = "x:1";
  });

  test_refuses_dns_without_a_network =
    refuses "network is false, and settings.backends.dns (lan) needs it"
      (listed {
        network = false;
        settings.backends.dns.lan.domain = "lan";
      });

  test_refuses_a_snapshot_beside_a_unit = refuses "snapshot and enable are both set" (listed {
    snapshot = ../data/snapshot.json;
  });

  test_refuses_a_backend_in_static_mode =
    refuses
      "mode is \"static\", which asks no backend, but settings.backends has dns and tailscale: set `mode` to \"resident\" or \"timer\""
      (listed {
        mode = "static";
        settings.backends.dns.lan.domain = "lan";
        settings.backends.tailscale.t = { };
      });

  test_refuses_a_file_of_run_time_in_static_mode =
    refuses "mode is \"static\", but settings.inventory names a file that the build cannot read"
      (nixos {
        mode = "static";
        settings.inventory.file = "/var/lib/clan/inventory.json";
      });

  test_refuses_another_directory_in_static_mode =
    refuses "mode is \"static\", which uses /etc/clan-discovery/targets"
      (listed {
        mode = "static";
        settings.output.directory = "/srv/targets";
      });

  # A machine that only exposes needs no other module of ours.
  test_exposed_services_need_no_other_module =
    let
      config = t.nixos [
        ../../nix/nixos/expose.nix
        {
          services.clan-discovery.expose.jellyfin = {
            port = 8096;
            front.domain = "films";
          };
        }
      ];
    in
    {
      expr = [
        config.services.clan-discovery.expose.jellyfin
        (t.failed config)
        config.warnings
      ];
      expected = [
        {
          port = 8096;
          type = null;
          path = null;
          scheme = null;
          params = { };
          labels = { };
          metrics = true;
          loopback = false;
          front = {
            domain = "films";
            path = "/";
            auth = "none";
            port = null;
            scheme = null;
            headers = { };
            unbuffered = false;
          };
        }
        [ ]
        [ ]
      ];
    };

  test_mistakes_in_exposed_services =
    let
      exposes =
        expose:
        t.nixos [
          ../../nix/nixos/expose.nix
          { services.clan-discovery = { inherit expose; }; }
        ];
      fails =
        expose:
        (builtins.tryEval (builtins.toJSON (exposes expose).services.clan-discovery.expose)).success;
      said = expose: t.failed (exposes expose);
      a = one: {
        a = {
          port = 8096;
        }
        // one;
      };
    in
    {
      expr = {
        # Types of options.
        types = map fails [
          (a { })
          (a { port = 99999; })
          (a { prot = 1; })
          (a { front.auth = "none"; })
          (a {
            front.domain = "x";
            front.auth = "bsic";
          })
          { a = { }; }
        ];
        assertions = lib.concatMap said [
          (a { type = "my films"; })
          (a { path = "metrics"; })
          (a { labels.machine = "x"; })
          (a { params.a-b = "x"; })
          (a { front.domain = "a b"; })
          (a {
            front.domain = "x";
            front.path = "y";
          })
          { "my films".port = 1; }
          (
            a { }
            // {
              b.port = 8096;
              b.path = "/metrics";
              c.port = 8096;
              c.metrics = false;
              c.front.domain = "c";
            }
          )
        ];
        warnings = lib.concatMap (expose: (exposes expose).warnings) [
          (a { metrics = false; })
          { nod.port = 9100; }
          { nod.port = 9101; }
        ];
      };
      expected = {
        types = [
          true
          false
          false
          false
          false
          false
        ];
        assertions = map (what: "services.clan-discovery.expose${what}") [
          ".a: 'my films' cannot be the name of a job: set `type` to letters, digits, '_', '-', '.'"
          ".a: `path` is \"metrics\", which is no path: it starts with a slash, and what follows a question mark goes into `params`"
          ".a: the label 'machine' cannot be set: it is no label name, or not yours to give"
          ".a: the parameter 'a-b' cannot be written as a label: set it in the scrape config of the job"
          ".a: front.domain is \"a b\", which is not a domain"
          ".a: front.path is \"y\", which is no path: it starts with a slash"
          ".my films: 'my films' cannot be the name of a job: set `type` to letters, digits, '_', '-', '.'"
          ": a and b have the same port 8096 and path: set another `port`, or `metrics = false` for one of them"
        ];
        warnings = map (what: "services.clan-discovery.expose.${what}") [
          "a has neither metrics nor a front: set `front`, or remove `metrics`"
          "nod: 'nod' is no known exporter, but has the port of one: did you mean 'node'?"
        ];
      };
    };

  # A machine scrapes what it exposes itself, also on loopback; in a fleet nothing else of the others is evaluated.
  test_exposed_services_of_a_fleet =
    let
      exposing = services: {
        config = {
          system = throw "system";
          services = {
            nginx = throw "nginx";
            clan-discovery = {
              enable = throw "enable";
              settings = throw "settings";
            }
            // services;
          };
        };
        pkgs = throw "pkgs";
      };
      of =
        fleet:
        t.nixos [
          ../../nix/nixos
          {
            networking.hostName = "monitor";
            services.clan-discovery = {
              enable = true;
              inherit fleet;
              expose.grafana = {
                port = 3000;
                loopback = true;
              };
            };
          }
        ];
      fleet = {
        # The machine itself, which would have no end, as the attribute of a real flake has.
        monitor = throw "monitor";
        bare.config.services = { };
        nas = exposing {
          expose.jellyfin.port = 8096;
          expose.redis = {
            port = 9121;
            loopback = true;
          };
          adoptScrapeConfigs = [
            {
              job_name = "caddy";
              static_configs = [ { targets = [ "localhost:2020" ]; } ];
              basic_auth.password = throw "password";
              honor_labels = null;
            }
          ];
        };
      };
      written =
        config:
        builtins.fromJSON (
          lib.last (builtins.split "[?]" config.services.clan-discovery.settings.inventory.exposed)
        );
      config = of fleet;
    in
    {
      expr = {
        alone = removeAttrs (written (of { })) [ "x" ];
        inherit ((written config)) scraper;
        machines = lib.attrNames (written config).machines;
        nas = (written config).machines.nas;
        jobs = config.services.clan-discovery.jobs;
        failed = t.failed config;
        missing = lib.length (t.failed (of (removeAttrs fleet [ "monitor" ])));
      };
      expected = {
        alone = {
          scraper = "monitor";
          machines.monitor = {
            adopted = [ ];
            expose.grafana = {
              port = 3000;
              type = null;
              path = null;
              scheme = null;
              params = { };
              labels = { };
              metrics = true;
              loopback = true;
              front = null;
            };
          };
        };
        scraper = "monitor";
        machines = [
          "bare"
          "monitor"
          "nas"
        ];
        nas = {
          adopted = [
            {
              basic_auth = true;
              job_name = "caddy";
              static_configs = [ { targets = [ "localhost:2020" ]; } ];
            }
          ];
          expose = {
            jellyfin.port = 8096;
            redis = {
              port = 9121;
              loopback = true;
            };
          };
        };
        jobs = [
          "grafana"
          "jellyfin"
          "caddy"
        ];
        failed = [ ];
        missing = 1;
      };
    };

  # The build reads Compose files in the store, of each project.
  test_compose_files =
    let
      config = compose: nixos { settings.inventory.compose.nas = compose; };
      stored = builtins.storeDir + "/x-compose.yaml";
      live = "/srv/compose.yaml";
      configs = [
        (config { files = stored; })
        (config { files = [ live ]; })
        (config {
          files = [ stored ];
          env_files = [ live ];
        })
        (config { projects = [ { files = [ stored ]; } ]; })
        (config { projects = [ { files = [ live ]; } ]; })
      ];
    in
    {
      expr = [
        (lib.concatMap t.failed configs)
        (map checks configs)
      ];
      expected = [
        [ ]
        [
          true
          false
          false
          true
          false
        ]
      ];
    };
}
