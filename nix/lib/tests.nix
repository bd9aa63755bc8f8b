# What nix/lib promises, in Nix's own form: `lib.runTests` gives the tests that fail, so an empty list is well.
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
      mac = {
        tags = [ ];
        machineClass = "darwin";
      };
      monitor = {
        tags = [ ];
        machineClass = "nixos";
      };
    };
    homes = cd.exports.homes {
      "wg:lan::".networking.priority = 5;
      "wg:lan:peer:db".peer.hosts = [ { plain = "fd00::5\n"; } ];
      "wg:lan:peer:monitor".peer.hosts = throw "not generated yet";
    };
    instances.monitoring = {
      server.monitor = { };
      exporter = {
        db.exporters = {
          node.port = 9200;
          systemd = { };
        };
        mac = { };
        monitor = { };
      };
    };
  };
  said = jobs: map (problem: problem.assertion) (cd.problemsOf jobs);
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
    expected = {
      success = false;
      value = false;
    };
  };
  test_every_declared_exporter_is_a_target_and_a_mac_has_none = {
    expr = lib.mapAttrs (_: map (group: builtins.head group.targets)) (cd.declared.targetsOf view);
    expected = {
      node = [
        "[fd00::5]:9200"
        "monitor.home.arpa:9100"
      ];
      systemd = [ "[fd00::5]:9558" ];
    };
  };
  test_the_jobs_of_files_are_those_of_the_targets = {
    expr = map (job: job.job_name) (
      cd.fileSdJobs {
        directory = "/d";
        jobs = cd.declared.jobsOf view;
      }
    );
    expected = builtins.attrNames (cd.declared.targetsOf view);
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
  test_what_is_well_is_no_problem = {
    expr = builtins.all (assertion: assertion) (said (cd.staticJobs (cd.declared.targetsOf view)));
    expected = true;
  };
  test_two_jobs_of_one_name_are_a_problem = {
    expr = builtins.all (assertion: assertion) (said [
      { job_name = "a"; }
      { job_name = "a"; }
    ]);
    expected = false;
  };
  test_an_address_is_split_and_what_is_none_is_null = {
    expr = map cd.splitAddress [
      "db.example.org.:0080"
      "[fd00::1]:1"
      "10.0.0.1:22:9100"
      "fd00::1:1"
      "db"
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
      null
      null
      null
    ];
  };
  test_nothing_secret_goes_to_discovery = {
    expr = lib.hasInfix "SECRET" (
      builtins.toJSON (
        cd.declared.inventoryOf (
          lib.recursiveUpdate view {
            instances.monitoring.server.monitor.additionalScrapeConfigs = [ { password = "SECRET"; } ];
          }
        )
      )
    );
    expected = false;
  };
}
