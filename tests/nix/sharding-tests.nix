# Servers that share targets by rendezvous hashing, under evalModules: their config, rules and scrapers, and each
# assertion.
{ nixpkgsLib }:
let
  t = import ./machine.nix { inherit nixpkgsLib; };
  inherit (t) lib;
  names = [
    "mon1"
    "mon2"
    "mon3"
  ];
  shared = {
    sharding = "rendezvous";
    replicas = 2;
    firewallInterfaces = [ ];
    additionalScrapeConfigs = [
      { job_name = "own"; }
      {
        job_name = "here";
        static_configs = [ { targets = [ "127.0.0.1:80" ]; } ];
      }
    ];
  };

  # clan : { <machine> = settings; } -> string -> config: servers with these settings beside the shared ones.
  clan = clanOf (lib.genAttrs names (_: { }));
  clanOf =
    members: settings: machine:
    t.member {
      inherit machine;
      machines =
        lib.genAttrs (lib.attrNames members ++ [ "db" ]) (_: {
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
        # The role has the mac by a tag.
        server = lib.mapAttrs (name: own: shared // own // settings.${name} or { }) (members // { mac = { }; });
        exporter.db.firewallInterfaces = [ ];
      };
    };
  everywhere = settings: lib.genAttrs names (_: settings);

  kept =
    config: name:
    map (rule: if rule.action == "keep" then rule.regex else rule.modulus) (
      lib.concatMap (job: job.relabel_configs or [ ]) (
        lib.filter (job: job.job_name == name) (t.seen config).jobs
      )
    );
  shardOf = config: config.services.clan-discovery.settings.shard;
  scrapersOf =
    config: lib.mapAttrs (_: one: one.url) config.services.clan-discovery.settings.verify.scrapers;

  # The messages of a server, without the prefix.
  said = config: map (lib.removePrefix "clan-discovery: ") (t.failed config);
  refuses = settings: messages: {
    expr = said (clan settings "mon1");
    expected = messages;
  };
  where = "instances.m.roles.server.machines.mon1.settings";
in
{
  # Only the user's own jobs have rules, with two of three parts; clan-discovery writes the share of the others.
  test_each_server_names_itself_and_all_members = {
    expr = map (
      name:
      let
        config = clan { } name;
      in
      [
        (said config)
        (shardOf config)
        (kept config "node")
        (kept config "own")
        (kept config "here")
      ]
    ) names;
    expected =
      lib.zipListsWith
        (name: parts: [
          [ ]
          {
            member = name;
            replicas = 2;
            members = everywhere { };
            unshared = t.cd.unshared;
          }
          [ ]
          [
            3
            parts
          ]
          [ ]
        ])
        names
        [
          "0|2"
          "1|0"
          "2|1"
        ];
  };

  test_states_and_weights = {
    expr =
      let
        config =
          clan {
            mon2.shardWeight = 0.5;
            mon3.shardState = "joining";
          } "mon2";
      in
      [
        (said config)
        (shardOf config).members
        # Every part changes with the number of servers, so that they scrape these whole until the step ends.
        (kept config "own")
      ];
    expected = [
      [ ]
      {
        mon1 = { };
        mon2.weight = 0.5;
        mon3.state = "joining";
      }
      [ ]
    ];
  };

  test_as_many_replicas_as_servers_need_no_rules = {
    expr =
      let
        config = clan (everywhere { replicas = 3; }) "mon1";
      in
      [
        (said config)
        (kept config "own")
      ];
    expected = [
      [ ]
      [ ]
    ];
  };

  # Not those on loopback, with a password or without such an API.
  test_verify_asks_every_server_that_listens_for_others = {
    expr =
      let
        # Another backend has another hash for own jobs.
        plain = everywhere { additionalScrapeConfigs = [ ]; };
      in
      [
        (scrapersOf (clan { } "mon1"))
        (scrapersOf (
          clan (lib.recursiveUpdate plain {
            mon2.webExternalUrl = "https://mon2.example.org/prometheus/";
            mon3 = {
              backend = "victoriametrics";
              port = 8500;
            };
          }) "mon1"
        ))
        (scrapersOf (
          clan {
            mon2.listenAddress = "127.0.0.1";
            mon3.basicAuthUsername = "x";
          } "mon1"
        ))
        (lib.attrNames (scrapersOf (clan (everywhere { sharding = "hashmod"; replicas = 1; }) "mon1")))
      ];
    expected = [
      {
        mon1 = "http://127.0.0.1:9090";
        mon2 = "http://mon2.home.arpa:9090";
        mon3 = "http://mon3.home.arpa:9090";
      }
      {
        mon1 = "http://127.0.0.1:9090";
        mon2 = "http://mon2.home.arpa:9090/prometheus";
        mon3 = "http://mon3.home.arpa:8500";
      }
      { mon1 = "http://127.0.0.1:9090"; }
      [ "prometheus" ]
    ];
  };

  test_refuses_more_replicas_than_servers = refuses (everywhere { replicas = 4; }) [
    "replicas is 4, but only mon1, mon2, mon3 are active: add servers, or set `replicas` to 3"
  ];
  test_refuses_more_replicas_than_active_servers =
    refuses
      {
        mon1.shardState = "leaving";
        mon2.shardState = "joining";
      }
      [
        "replicas is 2, but only mon3 is active: add servers, or set `replicas` to 1, or remove shardState of another server"
      ];
  test_refuses_servers_of_which_none_is_active =
    refuses
      (everywhere {
        shardState = "joining";
        replicas = 1;
      })
      [
        "no server is active: remove shardState of one server"
      ];
  test_refuses_different_replicas = refuses { mon2.replicas = 1; } [
    "mon1, mon2, mon3 differ in `replicas`, and each would compute other shares: set it for the role, not for one machine"
  ];
  test_refuses_different_kinds =
    refuses
      {
        mon2 = {
          sharding = "none";
          replicas = 1;
        };
      }
      [
        "servers have \"rendezvous\" and \"none\" as `sharding`, and each would count on another list of servers: set it for the role, and in every instance"
      ];
  test_refuses_different_jobs = refuses { mon2.staticTargets.node = [ "a:1" ]; } [
    "mon1, mon2, mon3 share their targets (sharding = \"rendezvous\") but have different jobs: set staticTargets, dnsDiscovery, additionalScrapeConfigs, discoveryMethod, snapshot and backend for the role, not for one machine"
  ];
  # The machine's own configuration has it, not the role.
  test_refuses_a_snapshot_of_one_machine = {
    expr = said (
      t.member {
        machine = "mon1";
        machines = lib.genAttrs names (_: {
          tags = [ "all" ];
          machineClass = "nixos";
        });
        instances.m.server = lib.genAttrs names (_: shared);
        modules = [
          { services.clan-discovery.snapshot = ../../examples/homelab/expected/targets.nix; }
        ];
      }
    );
    expected = [
      "a snapshot has the targets of every server: remove it, or set `sharding = \"hashmod\"`"
    ];
  };
  test_refuses_a_snapshot =
    refuses (everywhere { snapshot = ../../examples/homelab/expected/targets.nix; })
      [
        "a snapshot has the targets of every server: remove it, or set `sharding = \"hashmod\"`"
      ];
  test_refuses_settings_that_hashmod_does_not_read =
    refuses
      (everywhere {
        sharding = "hashmod";
        shardWeight = 2;
        shardState = "leaving";
      })
      (
        map
          (
            word:
            "${where}.${word} needs `sharding = \"rendezvous\"`, but sharding is \"hashmod\": remove it, or set sharding for the role"
          )
          [
            "replicas"
            "shardWeight"
            "shardState"
          ]
      );
  test_refuses_two_servers_of_one_name = {
    expr = said (clanOf (lib.genAttrs [ "mon1" "MON1" "mon2" ] (_: { })) { } "mon2");
    expected = [
      "the servers MON1, mon1 are one, because shares ignore the case of names: rename one of these machines"
    ];
  };
  test_refuses_instances_that_differ = {
    expr = said (
      t.member {
        machine = "mon1";
        machines = lib.genAttrs names (_: {
          tags = [ "all" ];
          machineClass = "nixos";
        });
        instances.a.server = everywhere (shared // { additionalScrapeConfigs = [ ]; });
        instances.b.server.mon1 = shared // {
          additionalScrapeConfigs = [ ];
          shardWeight = 2;
        };
      }
    );
    expected = [ "mon1 is a server of two instances, which differ in `shardWeight`: set it in both" ];
  };
}
