# The role `storage` under evalModules: what nodes, servers and Grafana's machine run, and each assertion.
{ nixpkgsLib }:
let
  t = import ./machine.nix { inherit nixpkgsLib; };
  inherit (t) lib;
  shut.firewallInterfaces = [ ];
  databases = [
    "db1"
    "db2"
    "db3"
  ];

  # clan : { settings; roles; } -> string -> config: three nodes with these settings of the role, a server `mon` with
  # vmagent, and `graf` with Grafana.
  clan =
    {
      settings ? { },
      nodes ? lib.genAttrs databases (_: { }),
      server ? { },
      roles ? { },
      modules ? [ ],
    }:
    machine:
    t.member {
      inherit machine modules;
      machines =
        lib.genAttrs
          (
            databases
            ++ [
              "mon"
              "mon2"
              "graf"
            ]
          )
          (_: {
            tags = [ "all" ];
            machineClass = "nixos";
          })
        // {
          mac = {
            tags = [ "all" ];
            machineClass = "darwin";
          };
        };
      instances.m = {
        storage = lib.mapAttrs (_: own: shut // settings // own) nodes;
        server.mon = shut // { backend = "vmagent"; } // server;
        dashboards.graf = {
          adminPasswordFile = "/run/secrets/admin";
          secretKeyFile = "/run/secrets/key";
        };
      }
      // roles;
    };

  flags = config: config.services.vmagent.extraArgs;
  first = config: config.services.vmagent.remoteWrite.url;
  store = config: config.services.victoriametrics;
  units = config: lib.attrNames (config.systemd.services or { });
  command =
    config: name: lib.tail (
      lib.splitString " " (
        lib.replaceStrings [ "'" ] [ "" ] config.systemd.services.${name}.serviceConfig.ExecStart
      )
    );
  sources =
    config:
    map (one: [
      one.name
      one.url
    ]) config.services.clan-discovery.stack.dashboards.found;
  said = config: map (lib.removePrefix "clan-discovery: ") (t.failed config);
  refuses = arguments: machine: messages: {
    expr = said (clan arguments machine);
    expected = messages;
  };
  package = {
    type = "derivation";
    name = "cluster";
    outPath = "/cluster";
  };
  thanos.settings.engine = "thanos";
  alerting.alerting.graf = shut // {
    mail = {
      to = [ "admin@example.org" ];
      from = "alerts@example.org";
      smarthost = "mail.example.org:587";
    };
  };
  # A server that stores on its own machine, and one that writes to the nodes.
  beside = {
    mon = shut // {
      backend = "victoriametrics";
    };
    mon2 = shut // {
      backend = "vmagent";
    };
  };
in
{
  test_a_node_of_victoriametrics = {
    expr =
      let
        config = clan { settings.retentionTime = "1y"; } "db1";
      in
      {
        failed = said config;
        inherit (store config) enable listenAddress retentionPeriod;
        options = (store config).extraOptions;
      };
    expected = {
      failed = [ ];
      enable = true;
      listenAddress = ":8428";
      retentionPeriod = "1y";
      options = [
        "-dedup.minScrapeInterval=1ms"
        "-enableTCP6"
        "-http.maxGracefulShutdownDuration=1m"
      ];
    };
  };

  # Nothing else of this clan knows that there is a storage.
  test_vmagent_writes_to_every_node = {
    expr =
      let
        config = clan { } "mon";
      in
      [
        (said config)
        config.warnings
        (first config)
        (lib.filter (lib.hasPrefix "-remoteWrite") (flags config))
        (command config "clan-discovery-storage")
        (store config).enable
      ];
    expected = [
      [ ]
      [ ]
      "http://db1.home.arpa:8428/api/v1/write"
      [
        "-remoteWrite.url=http://db2.home.arpa:8428/api/v1/write"
        "-remoteWrite.url=http://db3.home.arpa:8428/api/v1/write"
      ]
      (command (clan { } "graf") "clan-discovery-storage")
      false
    ];
  };

  test_grafana_reads_the_nodes_on_its_own_machine = {
    expr =
      let
        config = clan { } "graf";
      in
      [
        (sources config)
        (lib.elem "-httpListenAddr=127.0.0.1:8427" (command config "clan-discovery-storage"))
        (sources (clan thanos "graf"))
        (sources (clan { settings.engine = "remote-write"; } "graf"))
      ];
    expected = [
      [
        [
          "storage"
          "http://127.0.0.1:8427"
        ]
      ]
      true
      [
        [
          "storage"
          "http://127.0.0.1:10904"
        ]
      ]
      [ ]
    ];
  };

  test_prometheus_writes_to_every_node = {
    expr =
      let
        seen =
          settings:
          let
            config = clan {
              inherit settings;
              server.backend = "prometheus";
            } "mon";
          in
          {
            inherit (config.services.prometheus) remoteWrite;
            labels = config.services.prometheus.globalConfig.external_labels;
            failed = said config;
          };
      in
      map seen [
        { }
        { engine = "thanos"; }
      ];
    expected = [
      {
        remoteWrite = map (name: {
          inherit name;
          url = "http://${name}.home.arpa:8428/api/v1/write";
        }) databases;
        labels = null;
        failed = [ ];
      }
      {
        remoteWrite = [
          {
            name = "storage";
            url = "http://127.0.0.1:8427/api/v1/receive";
            write_relabel_configs = [
              {
                source_labels = [ "replica" ];
                regex = "";
                target_label = "replica";
                replacement = "mon";
              }
            ];
          }
        ];
        labels = null;
        failed = [ ];
      }
    ];
  };

  test_vmagent_shards = {
    expr =
      let
        config = clan {
          settings = {
            mode = "shard";
            port = 8500;
          };
        } "mon";
      in
      [
        (said config)
        (first config)
        (lib.filter (lib.hasInfix "shard") (flags config))
        (units config)
        (lib.length config.warnings)
      ];
    expected = [
      [ ]
      "http://db1.home.arpa:8500/api/v1/write"
      [
        "-remoteWrite.shardByURL"
        "-remoteWrite.shardByURLReplicas=2"
      ]
      [ ]
      1
    ];
  };

  # The user's own URL stays, and gets every sample, too.
  test_a_remote_write_of_the_user_stays = {
    expr =
      let
        config =
          settings:
          clan {
            inherit settings;
            server.remoteWrite = [ { url = "http://old:8428/api/v1/write"; } ];
          } "mon";
      in
      [
        (first (config { }))
        (lib.length (lib.filter (lib.hasPrefix "-remoteWrite.url=") (flags (config { }))))
        (said (config {
          mode = "shard";
        }))
      ];
    expected = [
      "http://old:8428/api/v1/write"
      3
      [
        "services.clan-discovery.storage.mode is \"shard\", and vmagent would store a part of the series at http://old:8428/api/v1/write, too: remove that remote write"
      ]
    ];
  };

  test_thanos_receives_and_queries = {
    expr =
      let
        node = clan thanos "db2";
        server = clan thanos "mon";
      in
      [
        (said node ++ said server)
        node.services.thanos.receive.arguments
        server.services.thanos.query.arguments
        (units server)
        (lib.filter (flag: lib.hasPrefix "-remoteWrite" flag || flag == "-sortLabels") (flags server))
        server.services.vmagent.prometheusConfig.global.external_labels
      ];
    expected = [
      [ ]
      [
        "--remote-write.address=:19291"
        "--grpc-address=:10901"
        "--http-address=127.0.0.1:10902"
        "--tsdb.path=/var/lib/thanos-receive"
        "--tsdb.retention=30d"
        "--receive.hashrings-file=/nix/store/00000000000000000000000000000000-thanos-hashring.json?[{\\\"algorithm\\\":\\\"ketama\\\",\\\"endpoints\\\":[{\\\"address\\\":\\\"db1.home.arpa:10901\\\"},{\\\"address\\\":\\\"db2.home.arpa:10901\\\"},{\\\"address\\\":\\\"db3.home.arpa:10901\\\"}],\\\"hashring\\\":\\\"default\\\"}]"
        "--receive.local-endpoint=db2.home.arpa:10901"
        "--receive.hashrings-algorithm=ketama"
        "--receive.replication-factor=3"
        "--label=receive_replica=\\\"db2\\\""
      ]
      [
        "--http-address=127.0.0.1:10904"
        "--grpc-address=127.0.0.1:10903"
        "--endpoint=db1.home.arpa:10901"
        "--endpoint=db2.home.arpa:10901"
        "--endpoint=db3.home.arpa:10901"
        "--query.replica-label=receive_replica"
        "--query.replica-label=replica"
        "--deduplication.func=chain"
      ]
      [ "clan-discovery-storage" ]
      [
        "-remoteWrite.queues=1"
        "-sortLabels"
        "-remoteWrite.forcePromProto"
      ]
      { replica = "mon"; }
    ];
  };

  test_the_cluster_of_victoriametrics = {
    expr =
      let
        seen = clan {
          settings = {
            engine = "victoriametrics-cluster";
            dedupInterval = "15s";
          };
          modules = [ { services.clan-discovery.storage.clusterPackage = package; } ];
        };
        config = seen "mon";
      in
      [
        (said config ++ said (seen "db1"))
        (first config)
        (units config)
        (units (seen "graf"))
        (lib.filter (lib.hasPrefix "-vm") (command (seen "db1") "vmstorage"))
        (lib.drop 2 (command config "vminsert"))
        (lib.drop 3 (command config "vmselect"))
      ];
    expected = [
      [ ]
      "http://127.0.0.1:8480/insert/0/prometheus/api/v1/write"
      [
        "vminsert"
        "vmselect"
      ]
      [
        "grafana"
        "vmselect"
      ]
      [
        "-vminsertAddr=:8400"
        "-vmselectAddr=:8401"
      ]
      (
        map (name: "-storageNode=${name}.home.arpa:8400") databases
        ++ [ "-replicationFactor=2" ]
      )
      (
        map (name: "-storageNode=${name}.home.arpa:8401") databases
        ++ [
          "-replicationFactor=2"
          "-dedup.minScrapeInterval=15000ms"
        ]
      )
    ];
  };

  # Of a machine without a clan, which has a vmagent of its own and Grafana.
  test_the_module_without_a_clan = {
    expr =
      let
        config = t.nixos [
          ../../nix/nixos
          {
            networking.hostName = "mon";
            services.vmagent.enable = true;
            services.vmagent.remoteWrite.url = "http://old:8428/api/v1/write";
            services.clan-discovery.storage = {
              nodes.db1.host = "fd00::1";
              nodes.db2.port = 8500;
              writes = true;
              reads = true;
            };
          }
        ];
        wrong = t.nixos [
          ../../nix/nixos
          {
            networking.hostName = "mon";
            services.clan-discovery.storage.node = "db1";
          }
        ];
      in
      [
        (t.failed config)
        (flags config)
        (sources config)
        (t.failed wrong)
      ];
    expected = [
      [ ]
      [
        "-enableTCP6"
        "-remoteWrite.url=http://[fd00::1]:8428/api/v1/write"
        "-remoteWrite.url=http://db2:8500/api/v1/write"
      ]
      [
        [
          "storage"
          "http://127.0.0.1:8427"
        ]
      ]
      [
        "services.clan-discovery.storage.node: there is no node 'db1' in `nodes`: add it, or correct the name"
      ]
    ];
  };

  # Of nodes alone, on the interfaces of the role.
  test_ports_are_open_for_servers = {
    expr =
      let
        ports =
          settings: machine:
          let
            config = clan {
              settings = settings // {
                firewallInterfaces = [ "wg0" ];
              };
            } machine;
          in
          config.networking.firewall.interfaces.wg0.allowedTCPPorts or [ ];
      in
      [
        (ports { } "db1")
        (ports { engine = "thanos"; } "db1")
        (ports { engine = "remote-write"; } "db1")
        (ports { } "graf")
      ];
    expected = [
      [ 8428 ]
      [
        10901
        19291
      ]
      [ 9090 ]
      [ ]
    ];
  };

  # Where the role is not used, nothing changes.
  test_no_role_no_storage = {
    expr =
      let
        config = clan {
          nodes = { };
          server.remoteWrite = [ { url = "http://old:8428/api/v1/write"; } ];
          roles.dashboards = { };
          roles.storage = { };
        } "mon";
      in
      [
        (flags config)
        (lib.length (said config))
      ];
    expected = [
      [ "-enableTCP6" ]
      1 # a role without a machine
    ];
  };

  # vmagent evaluates no rules.
  test_vmalert_evaluates_the_rules_of_vmagent = {
    expr =
      let
        vmalertOf = config: lib.attrByPath [ "services" "vmalert" "instances" "clan-discovery" ] { } config;
        seen =
          arguments:
          let
            config = clan (arguments // { roles = (arguments.roles or { }) // alerting; }) "mon";
            found = (vmalertOf config).settings or { };
          in
          {
            failed = said config;
            urls = map (name: found.${name} or null) [
              "datasource.url"
              "remoteRead.url"
              "remoteWrite.url"
            ];
            to = found."notifier.url" or null;
            rules = lib.length (found.rule or [ ]);
            labels = found."external.label" or null;
          };
      in
      map seen [
        { }
        # Its own machine is a node.
        { nodes = lib.genAttrs [ "db1" "mon" ] (_: { }); }
        thanos
        {
          settings.engine = "victoriametrics-cluster";
          modules = [ { services.clan-discovery.storage.clusterPackage = package; } ];
        }
      ];
    expected =
      let
        seen = read: kept: {
          failed = [ ];
          urls = [ read ] ++ (if kept then [ read "http://127.0.0.1:8429" ] else [ null null ]);
          to = [ "http://graf.home.arpa:9093" ];
          rules = 1;
          labels = null;
        };
      in
      [
        (seen "http://127.0.0.1:8427" true)
        (seen "http://127.0.0.1:8427" true)
        (seen "http://127.0.0.1:10904" false)
        (seen "http://127.0.0.1:8481/select/0/prometheus" true)
      ];
  };

  test_warns_if_no_rule_is_evaluated = {
    expr =
      let
        config =
          machine:
          clan {
            settings.engine = "remote-write";
            roles = alerting // {
              server = {
                mon = shut // { backend = "vmagent"; };
                mon2 = shut;
              };
            };
          } machine;
      in
      [
        (said (config "mon"))
        (lib.filter (lib.hasInfix "evaluates no alert rule") (config "mon").warnings)
        (lib.filter (lib.hasInfix "evaluates no alert rule") (config "mon2").warnings)
      ];
    expected = [
      [ ]
      [
        "services.clan-discovery.alerts: this machine evaluates no alert rule, because vmagent evaluates none, and nothing here reads the nodes of the storage as one: set another engine or mode (docs/storage.md), or add an instance to services.vmalert.instances"
      ]
      [ ]
    ];
  };

  # A machine that reaches a node does not need the token of an agent.
  test_warns_of_nodes_that_agents_may_reach = {
    expr =
      let
        warned =
          settings: machine:
          lib.filter (lib.hasInfix "the name of any agent")
            (clan {
              inherit settings;
              roles.agent.graf = { };
            } machine).warnings;
      in
      [
        (warned { firewallInterfaces = [ "wg0" ]; } "db1")
        (warned { firewallInterfaces = [ ]; } "db1")
        (warned { firewallInterfaces = [ "wg0" ]; } "mon")
      ];
    expected = [
      [
        "clan-discovery: instances.m.roles.storage.machines.db1.settings: the node asks for no password, so that any machine that reaches port 8428 can write under the name of any agent: let only the servers reach it, by rules of the firewall for their addresses and firewallInterfaces = [ ]"
      ]
      [ ]
      [ ]
    ];
  };

  test_asks_for_an_interface = {
    expr = map (lib.hasInfix "no interface is known on which to open port 8428") (
      said (clan { settings.firewallInterfaces = null; } "db1")
    );
    expected = [ true ];
  };
  test_refuses_more_replicas_than_nodes =
    refuses
      {
        settings = {
          mode = "shard";
          replicas = 4;
        };
      }
      "db1"
      [
        "services.clan-discovery.storage.replicas: 4 copies need 4 nodes, and there are 3: add nodes, or lower it"
      ];
  test_refuses_fewer_replicas_than_nodes = refuses { settings.replicas = 2; } "mon" [
    "services.clan-discovery.storage.replicas is 2, and with mode = \"replicate\" each of the 3 nodes gets every sample: remove it; or set `mode = \"shard\"`, or the engine victoriametrics-cluster"
  ];
  test_refuses_two_engines =
    refuses
      { nodes = lib.genAttrs databases (name: lib.optionalAttrs (name == "db2") thanos.settings); }
      "mon"
      [
        "the machines of the role storage differ in `engine` (victoriametrics and thanos), but all nodes store together: set it once, in the settings of the role"
      ];
  test_refuses_to_shard_thanos =
    refuses
      {
        settings = {
          engine = "thanos";
          mode = "shard";
        };
      }
      "db1"
      [
        "services.clan-discovery.storage.mode: \"shard\" is for victoriametrics: thanos distributes the samples itself: remove it, or set another engine"
      ];
  test_refuses_a_storage_without_a_server =
    refuses
      {
        roles.server = { };
        roles.dashboards = { };
      }
      "db1"
      [
        "instances.m.roles.storage.machines.db1.settings: no server writes to the storage: give the role server to a machine, with the backend prometheus or vmagent"
      ];
  test_refuses_a_reserved_port = refuses { settings.port = 80; } "db1" [
    "services.clan-discovery.storage: port 80 of the node db1 is reserved: programs other than root's cannot listen below 1024: set another one"
  ];
  test_refuses_the_port_of_another_program =
    refuses
      {
        nodes.mon.port = 9090;
        server.backend = "prometheus";
      }
      "mon"
      [
        "services.clan-discovery.storage: port 9090 of the node mon is that of another program of this machine: set another one"
      ];
  test_refuses_one_port_for_two =
    refuses
      {
        settings = {
          engine = "thanos";
          readPort = 19291;
        };
      }
      "db1"
      [
        "services.clan-discovery.storage: the node db1 takes writes and queries on the same port 19291: set another readPort"
      ];
  test_refuses_a_read_port_of_victoriametrics = refuses { settings.readPort = 8429; } "db1" [
    "services.clan-discovery.storage: the node db1 has readPort 8429, but victoriametrics takes writes and queries on one port: remove readPort"
  ];
  test_refuses_a_node_that_others_do_not_reach =
    refuses { settings.listenAddress = "127.0.0.1"; } "db1"
      [
        "instances.m.roles.storage.machines.db1.settings.listenAddress: the node listens on 127.0.0.1, where other machines do not reach it: remove it, or set another one"
      ];
  test_refuses_a_store_beside_a_store =
    refuses
      {
        nodes.mon = { };
        roles.server = beside;
      }
      "mon"
      [
        "mon is a server with the backend victoriametrics, and a node of the storage, which is a VictoriaMetrics, too: set `backend = \"vmagent\"` for the server"
      ];
  test_refuses_a_mac =
    refuses
      {
        nodes = {
          db1 = { };
          mac = { };
        };
      }
      "db1"
      [
        "mac: a darwin machine is in the role storage, and nix-darwin runs no store: give the role to the tag `nixos` instead of `all`"
      ];
  test_refuses_prometheus_that_shards =
    refuses
      {
        settings.mode = "shard";
        server.backend = "prometheus";
      }
      "mon"
      [
        "services.clan-discovery.storage.mode is \"shard\", and Prometheus does not shard series with copies: write with vmagent, or set mode = \"replicate\""
      ];
  test_refuses_a_cluster_without_its_programs =
    refuses { settings.engine = "victoriametrics-cluster"; } "graf"
      [
        "services.clan-discovery.storage.clusterPackage is not set: nixpkgs has no vmstorage, vminsert and vmselect: set a package with these programs, or the engine victoriametrics with mode = \"replicate\""
      ];
  test_refuses_an_interval = refuses { settings.dedupInterval = "soon"; } "db1" [
    "services.clan-discovery.storage.dedupInterval: 'soon' is no duration from 1ms to 1h: write for example 15s"
  ];
  test_refuses_a_long_interval = refuses { settings.dedupInterval = "2h"; } "db1" [
    "services.clan-discovery.storage.dedupInterval: '2h' is no duration from 1ms to 1h: write for example 15s"
  ];
  test_refuses_an_interval_of_thanos =
    refuses
      {
        settings = thanos.settings // {
          dedupInterval = "15s";
        };
      }
      "db1"
      [
        "services.clan-discovery.storage.dedupInterval is for VictoriaMetrics, not for thanos: remove it"
      ];
  test_refuses_two_nodes_in_one_place =
    refuses
      { modules = [ { services.clan-discovery.storage.nodes.db2.host = "db1.home.arpa"; } ]; }
      "mon"
      [
        "services.clan-discovery.storage.nodes: db1 and db2 are both at db1.home.arpa:8428, so that two copies of a sample would be in one place: give each node a machine, or a port, of its own"
      ];
  # vmagent, and an exporter of the machine's own configuration.
  test_refuses_the_port_of_vmagent = refuses { nodes.mon.port = 8429; } "mon" [
    "services.clan-discovery.storage: port 8429 of the node mon is that of another program of this machine: set another one"
  ];
  test_refuses_the_port_of_an_exporter =
    refuses
      {
        nodes.db1.port = 9100;
        modules = [ { services.prometheus.exporters.node.enable = true; } ];
      }
      "db1"
      [
        "services.clan-discovery.storage: port 9100 of the node db1 is that of another program of this machine: set another one"
      ];

  # The build checks the config, and `show` prints it.
  test_the_config_has_the_whole_storage = {
    expr =
      let
        storageOf =
          modules: machine:
          (clan (thanos // { inherit modules; }) machine).services.clan-discovery.settings.storage or null;
      in
      [
        (storageOf [ ] "mon")
        (storageOf [ ] "db1")
      ];
    expected = [
      {
        engine = "thanos";
        mode = "replicate";
        replicas = 3;
        nodes = lib.genAttrs databases (name: {
          address = "${name}.home.arpa";
          port = 19291;
          read_port = 10901;
        });
        write_url = "http://127.0.0.1:8427/api/v1/receive";
      }
      null
    ];
  };
  # `show` would print other flags than those of the programs.
  test_refuses_another_storage_in_the_config =
    refuses
      {
        modules = [
          {
            services.clan-discovery.settings.storage = {
              cluster = "pair";
              nodes.db1.address = "10.0.0.1";
              replicas = 3;
            };
          }
        ];
      }
      "mon"
      [
        "services.clan-discovery.settings.storage has another cluster and nodes than services.clan-discovery.storage, whose programs would not follow: set it there; or set services.clan-discovery.storage.writes = false, and give the programs the flags of `show --format storage`"
      ];
  test_writes_with_flags_of_the_user = refuses {
    server.remoteWrite = [ { url = "http://db1:8428/api/v1/write"; } ];
    modules = [
      {
        services.clan-discovery.storage.writes = false;
        services.clan-discovery.settings.storage.cluster = "pair";
      }
    ];
  } "mon" [ ];

  test_warns_of_samples_of_several_servers = {
    expr =
      map
        (
          dedupInterval:
          (clan {
            settings = { inherit dedupInterval; };
            roles.server = lib.genAttrs [ "mon" "mon2" ] (_: shut // { backend = "vmagent"; });
          } "mon").warnings
        )
        [
          "1ms"
          "15s"
        ];
    expected = [
      [
        "clan-discovery: instances.m.roles.storage.machines.db1.settings: several servers scrape the same targets, and each of their samples is kept: set dedupInterval to the scrape interval"
      ]
      [ ]
    ];
  };

  test_warns_of_a_server_that_stores_elsewhere = {
    expr = (clan { roles.server = beside; } "mon").warnings;
    expected = [
      "clan-discovery: instances.m.roles.server.machines.mon.settings: the backend victoriametrics does not write to the storage: set `backend` to vmagent or prometheus"
    ];
  };
}
