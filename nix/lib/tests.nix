# What nix/lib promises: `lib.runTests` gives the tests that fail, so an empty list is good.
#
#   import ./nix/lib/tests.nix { inherit lib; }
{ lib }:
let
  cd = import ./.;
  view = {
    domain = "home.arpa";
    server = "monitor";
    machines = {
      db = {
        tags = [ "nixos" ];
        machineClass = "nixos";
      };
      monitor = {
        tags = [ ];
        machineClass = "nixos";
      };
    };
    instances.monitoring = {
      server.monitor = {
        discoveryMethod = "dns";
        dnsDiscovery.lan.names = [ "lan.example.org" ];
        staticTargets.nas = [ "nas:9100" ];
        port = 9191;
        webExternalUrl = "/metrics";
        backend = "vmagent";
        enableAutoDiscovery = true;
        scrapeServers = false;
        rules = [ "SECRET" ];
      };
      server.spare.staticTargets.other = [ "other:1" ];
      exporter = {
        db.exporters = {
          node.port = 9200;
          systemd = { };
          redis.enable = false;
          blackbox = { };
        };
        monitor = { };
        stranger.exporterType = "nginx";
      };
    };
  };
  messages =
    jobs:
    map (problem: problem.message) (lib.filter (problem: !problem.assertion) (cd.problemsOf jobs));
  refuses = part: jobs: {
    expr =
      let
        found = messages jobs;
      in
      if lib.length found == 1 && lib.hasInfix part (lib.head found) then part else found;
    expected = part;
  };
  target = address: [
    {
      job_name = "a";
      static_configs = [ { targets = [ address ]; } ];
    }
  ];
  label = labels: [
    {
      job_name = "a";
      static_configs = [
        {
          targets = [ ];
          inherit labels;
        }
      ];
    }
  ];
  throws = {
    success = false;
    value = false;
  };
in
lib.runTests {
  test_a_label_has_one_underscore_for_each_character = {
    expr = cd.labelSafe "a-b ü€";
    expected = "a_b___";
  };
  test_an_exporter_has_its_port = {
    expr = { inherit (cd.exporter "postgres") port path kind; };
    expected = {
      port = 9187;
      path = "/metrics";
      kind = "plain";
    };
  };
  test_an_unknown_exporter_throws = {
    expr = builtins.tryEval (cd.exporter "nodee");
    expected = throws;
  };

  # The user may have a job of that name; an exporter of an unknown machine is a job.
  test_jobs_of_a_darwin_machine = {
    expr =
      map
        (
          darwin:
          cd.declared.jobsOf (
            view
            // {
              inherit darwin;
              machines.mac.machineClass = "darwin";
              instances.m.exporter.mac.exporters = {
                caddy = { };
                nginx = { };
                node = { };
                own.port = 1;
              };
            }
          )
        )
        [
          "exclude"
          "node"
          "include"
        ];
    expected = [
      [
        "caddy"
        "own"
      ]
      [
        "caddy"
        "node"
        "own"
      ]
      [
        "caddy"
        "nginx"
        "node"
        "own"
      ]
    ];
  };

  # Of this server alone, but the exporters of all; neither switched off nor without a target to probe.
  test_jobs_of_an_inventory = {
    expr = cd.declared.jobsOf view;
    expected = [
      "lan"
      "nas"
      "nginx"
      "node"
      "systemd"
    ];
  };
  test_the_inventory_holds_no_secret_and_no_stranger = {
    expr =
      let
        inventory = cd.declared.inventoryOf view;
        roles = inventory.instances.monitoring.roles;
      in
      [
        (lib.hasInfix "SECRET" (builtins.toJSON inventory))
        (lib.attrNames roles.exporter.machines)
        roles.exporter.machines.db.settings
        roles.server.machines.monitor.settings
        inventory.tags.nixos
      ];
    expected = [
      false
      [
        "db"
        "monitor"
      ]
      {
        exporters = {
          node.port = 9200;
          systemd = { };
          redis.enable = false;
          blackbox = { };
        };
      }
      (removeAttrs view.instances.monitoring.server.monitor [ "rules" ])
      [ "db" ]
    ];
  };
  test_the_inventory_holds_descriptions_limits_units_and_needs = {
    expr =
      let
        said = {
          limits.disk_percent = 95;
          units = [ "nginx.service" ];
          needs = [ "db" ];
        };
        inventory = cd.declared.inventoryOf (
          lib.recursiveUpdate view {
            machines.db.description = "the \${big} box";
            machines.monitor.description = null;
            instances.monitoring.exporter.db = said;
            instances.monitoring.exporter.monitor = {
              limits = { };
              units = [ ];
            };
          }
        );
        members = inventory.instances.monitoring.roles.exporter.machines;
      in
      [
        inventory.machines.db.description
        (inventory.machines.monitor ? description)
        (builtins.intersectAttrs said members.db.settings)
        (builtins.intersectAttrs said members.monitor.settings)
      ];
    expected = [
      "the \${big} box"
      false
      {
        limits.disk_percent = 95;
        units = [ "nginx.service" ];
        needs = [ "db" ];
      }
      { }
    ];
  };
  test_exports_are_reduced_to_hosts_and_networks = {
    expr = cd.exports.reduced {
      "wg:lan::".networking = {
        priority = 5;
        secret = "SECRET";
      };
      "wg:lan:peer:db".peer.hosts = [
        { plain = "fd00::5\n"; }
        { var.file = "SECRET"; }
      ];
      "wg:lan:peer:monitor".peer.hosts = throw "not generated yet";
    };
    expected = {
      "wg:lan::".networking.priority = 5;
      "wg:lan:peer:db".peer.hosts = [ { plain = "fd00::5\n"; } ];
    };
  };
  # For one release: they throw, and name what to use.
  test_removed_functions_throw = {
    expr = map (value: builtins.tryEval value) [
      (cd.declared.targetsOf view)
      (cd.exports.homes { })
    ];
    expected = [
      throws
      throws
    ];
  };

  test_jobs_of_files = {
    expr = cd.fileSdJobs {
      directory = "/d";
      jobs = [ "node" ];
    };
    expected = [
      {
        job_name = "node";
        file_sd_configs = [ { files = [ "/d/node.json" ]; } ];
      }
    ];
  };
  test_jobs_of_split_files = {
    expr =
      map
        (
          split:
          map (job: (lib.head job.file_sd_configs).files) (
            cd.fileSdJobs {
              directory = "/d";
              jobs = [
                "node"
                "systemd"
              ];
              inherit split;
            }
          )
        )
        [
          2
          { node = 64; }
          { node = 1; }
        ];
    expected = [
      [
        [ "/d/node.*.json" ]
        [ "/d/systemd.*.json" ]
      ]
      [
        [ "/d/node.*.json" ]
        [ "/d/systemd.json" ]
      ]
      [
        [ "/d/node.json" ]
        [ "/d/systemd.json" ]
      ]
    ];
  };
  test_jobs_of_files_with_an_interval = {
    expr = map (job: (lib.head job.file_sd_configs).refresh_interval) (
      cd.fileSdJobs {
        directory = "/d";
        jobs = {
          a = [ ];
          b = [ ];
        };
        refreshInterval = "1m";
      }
    );
    expected = [
      "1m"
      "1m"
    ];
  };
  test_a_snapshot_is_read_as_nix_and_as_json = {
    expr =
      let
        nix = ../../examples/homelab/expected/targets.nix;
      in
      [
        (cd.snapshot nix == import nix)
        (cd.staticJobs (cd.snapshot ../../tests/data/snapshot.json))
      ];
    expected = [
      true
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
    ];
  };
  test_a_share_keeps_by_name = {
    expr =
      map (rule: rule.action)
        (builtins.head (
          cd.sharded {
            members = 2;
            number = 1;
          } [ { job_name = "node"; } ]
        )).relabel_configs;
    expected = [
      "hashmod"
      "keep"
    ];
  };
  # Each of three parts is kept by two of three servers.
  test_a_share_of_replicas_keeps_the_parts_before_it = {
    expr =
      map
        (
          number:
          (builtins.elemAt
            (builtins.head (
              cd.sharded {
                inherit number;
                members = 3;
                replicas = 2;
              } [ { job_name = "node"; } ]
            )).relabel_configs
            1
          ).regex
        )
        [
          0
          1
          2
        ];
    expected = [
      "0|2"
      "1|0"
      "2|1"
    ];
  };
  # The order of relabelling: the job's own, the config's, the share.
  test_settings_of_a_job_come_before_the_share = {
    expr = map (job: map (step: step.target_label or step.action) job.relabel_configs) (
      cd.sharded
        {
          members = 2;
          number = 0;
        }
        (
          cd.configured { a.relabel_configs = [ { target_label = "config"; } ]; } [
            {
              job_name = "a";
              relabel_configs = [ { target_label = "job"; } ];
            }
          ]
        )
    );
    expected = [
      [
        "job"
        "config"
        "__tmp_clan_shard"
        "keep"
      ]
    ];
  };
  test_a_fragment_for_alloy = {
    expr = cd.alloy {
      forwardTo = [ "prometheus.remote_write.mimir.receiver" ];
      jobs = cd.fileSdJobs {
        directory = "/d";
        jobs = [ "node" ];
        refreshInterval = "30s";
      };
    };
    expected = ''
      discovery.file "clan_node" {
        files = ["/d/node.json"]
        refresh_interval = "30s"
      }
      prometheus.scrape "clan_node" {
        targets = discovery.file.clan_node.targets
        job_name = "node"
        forward_to = [prometheus.remote_write.mimir.receiver]
        scrape_interval = "1m"
        scrape_timeout = "10s"
      }
    '';
  };
  # Two jobs with the same letters must not be one component.
  test_labels_of_alloy_are_unique = {
    expr =
      let
        labelOf =
          name:
          lib.elemAt (lib.splitString "\"" (
            cd.alloy {
              forwardTo = [ ];
              jobs = [ { job_name = name; } ];
            }
          )) 1;
      in
      map labelOf [
        "a_b"
        "a-b"
        "a.b"
      ];
    expected = [
      "clan_a_b"
      "clan_a_b_${builtins.substring 0 8 (builtins.hashString "sha256" "a-b")}"
      "clan_a_b_${builtins.substring 0 8 (builtins.hashString "sha256" "a.b")}"
    ];
  };
  test_what_alloy_does_not_have = {
    expr = cd.alloyComplaints [
      {
        job_name = "good";
        scheme = null;
        tls_config.ca_file = "/x";
      }
      {
        job_name = "bad";
        consul_sd_configs = [ { } ];
        keep_dropped_targets = 3;
        tls_config.max_version = "TLS13";
        relabel_configs = [ { regx = "x"; } ];
      }
    ];
    expected = [
      "scrape config 'bad': Alloy's discovery.file and prometheus.scrape have no consul_sd_configs, keep_dropped_targets, tls_config.max_version, regx: write a component of Alloy for it in /etc/alloy"
    ];
  };
  test_alloy_refuses_what_it_does_not_have = {
    expr = builtins.tryEval (
      builtins.deepSeq (cd.alloy {
        forwardTo = [ ];
        jobs = [
          {
            job_name = "bad";
            consul_sd_configs = [ ];
          }
        ];
      }) true
    );
    expected = throws;
  };
  # It would not load the fragment, nor the user's files beside it.
  test_alloy_refuses_a_timeout_longer_than_the_interval = {
    expr = builtins.tryEval (
      builtins.deepSeq (cd.alloy {
        forwardTo = [ ];
        jobs = [
          {
            job_name = "slow";
            scrape_timeout = "2m";
          }
        ];
      }) true
    );
    expected = throws;
  };
  # It refuses a config with such a key.
  test_victoriametrics_knows_no_refresh_interval = {
    expr = cd.victoriametrics (
      cd.fileSdJobs {
        directory = "/d";
        jobs = [ "node" ];
        refreshInterval = "30s";
      }
    );
    expected.scrape_configs = [
      {
        job_name = "node";
        file_sd_configs = [ { files = [ "/d/node.json" ]; } ];
      }
    ];
  };
  # `%{NAME}` would be replaced from its environment, anywhere in the file.
  test_victoriametrics_expands_nothing_of_ours = {
    expr = builtins.tryEval (
      cd.victoriametrics (label {
        x = "%{HOME}";
      }) != null
    );
    expected = throws;
  };

  test_what_is_well_is_no_problem = {
    expr = messages (target "[fd00::1]:9100" ++ [ { job_name = "b"; } ]);
    expected = [ ];
  };
  test_refuses_two_jobs_of_one_name = refuses "more than one scrape config is named 'a'" [
    { job_name = "a"; }
    { job_name = "a"; }
  ];
  test_refuses_a_job_without_a_name = refuses "without a job_name" [ { } ];
  test_refuses_ipv6_without_brackets = refuses "invalid address 'a: fd00::1:1'" (target "fd00::1:1");
  test_refuses_port_0 = refuses "invalid address 'a: db:0'" (target "db:0");
  test_refuses_a_port_that_is_too_large = refuses "invalid address" (target "db:65536");
  test_refuses_a_label_with_a_dash = refuses "invalid label 'a: a-b'" (label {
    "a-b" = "x";
  });
  test_refuses_a_label_that_is_no_string = refuses "invalid label 'a: x'" (label {
    x = 1;
  });
  test_what_is_refused_is_thrown = {
    expr = builtins.tryEval (cd.checked [ { } ]);
    expected = throws;
  };

  test_addresses = {
    expr = map cd.splitAddress [
      "db.example.org.:0080"
      "[fd00::1]:1"
      "10.0.0.1:22:9100"
      "fd00::1:1"
      "db"
      "a b:1"
      "[x]:1"
      "http://a:1"
      "a..b:80"
      "-a:80"
      "[:::::]:80"
      "[1::2::3]:80"
      "[1:2:3:4:5:6:7]:80"
      "[::ffff:10.0.0.256]:80"
    ];
    expected = [
      {
        host = "db.example.org.";
        port = 80;
      }
      {
        host = "fd00::1";
        port = 1;
      }
    ]
    ++ lib.genList (_: null) 12;
  };
  # Only the fields that are read, in both shapes of a proxy.
  test_manifest_is_public = {
    expr = cd.manifest.public {
      network = {
        domain = "example.org";
        shared_secret = "SECRET";
      };
      root_password = "SECRET";
      services = {
        one = {
          ip = "10.0.0.1";
          env.TOKEN = "SECRET";
          interface = {
            db.password = "SECRET";
            auth = "forward_auth";
            proxy = {
              upstream = 80;
              password = "SECRET";
            };
            health = {
              startup = "systemctl is-active one";
              token = "SECRET";
            };
          };
        };
        two.interface.proxy = {
          a = {
            upstream = "localhost:81";
            auth = {
              type = "oidc";
              client_secret = "SECRET";
              oidc = {
                redirect_uris = [ "https://a.example.org/" ];
                secret = "SECRET";
              };
            };
          };
          b = {
            domain = "b";
            note = "SECRET";
          };
        };
      };
    };
    expected = {
      network.domain = "example.org";
      services = {
        one = {
          ip = "10.0.0.1";
          interface = {
            auth = "forward_auth";
            proxy.upstream = 80;
            health.startup = "systemctl is-active one";
          };
        };
        two.interface.proxy = {
          a = {
            upstream = "localhost:81";
            auth = {
              type = "oidc";
              oidc.redirect_uris = [ "https://a.example.org/" ];
            };
          };
          b.domain = "b";
        };
      };
    };
  };
  test_manifest_with_a_list_is_refused = {
    expr =
      (builtins.tryEval (builtins.deepSeq (cd.manifest.public { services = [ "SECRET" ]; }) true))
      .success;
    expected = false;
  };
}
