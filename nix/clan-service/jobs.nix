# Which jobs a server has: from target files where somebody is asked at run time, else with the targets in them.
{ lib, cd }:
let
  # The wishes of two instances whose servers are the same machine are joined.
  settingsOf = mine: map (entry: entry.settings) mine;
  asked =
    settings:
    lib.optionals settings.enableAutoDiscovery (
      lib.intersectLists [ "tailscale" "dns" ] (cd.service.methodsOf settings)
    );

  # Servers that share the targets among them: by name, so that each has the same list.
  sharingOf =
    seen:
    lib.unique (
      lib.sort (a: b: a < b) (
        lib.concatMap (
          instance:
          lib.attrNames (
            lib.filterAttrs (
              name: settings:
              settings.sharding == "hashmod"
              && (seen.machines.${name} or { machineClass = ""; }).machineClass == "nixos"
            ) (instance.server or { })
          )
        ) (lib.attrValues seen.instances)
      )
    );
  # What each server has of its own has the same address on all of them.
  isLocal =
    job:
    lib.any (
      group:
      lib.any (target: builtins.match "(localhost|127\\.[0-9.]+|\\[::1])(:.*)?" target != null) (
        group.targets or [ ]
      )
    ) (if job.static_configs or null == null then [ ] else job.static_configs);
  indexOf = name: names: lib.lists.findFirstIndex (other: other == name) null names;
in
{
  inherit sharingOf;

  # methodsOf : [ entry ] -> [ string ]: who is asked at run time.
  methodsOf = mine: lib.unique (lib.concatMap asked (settingsOf mine));

  # additionalOf : [ entry ] -> [ job ]
  additionalOf =
    mine:
    lib.concatMap (settings: settings.additionalScrapeConfigs ++ settings.scrapeConfigs) (
      settingsOf mine
    );

  # listedOf : settings of services.clan-discovery -> [ string ]: jobs that the machine's own configuration adds.
  listedOf =
    settings:
    let
      all = sets: lib.attrValues (if sets == null then { } else sets);
    in
    lib.concatMap (list: lib.attrNames (list.targets or { })) (all settings.backends.static)
    ++ lib.concatMap (dns: lib.optional (dns.job or null != null) dns.job) (all settings.backends.dns)
    ++ lib.attrNames (lib.filterAttrs (_: rule: rule.select or null != null) settings.exporters);

  # jobsOf : { seen, mine, directory, dynamic } -> { ours, additional }
  jobsOf =
    {
      seen,
      mine,
      directory,
      dynamic,
      additional,
      listed,
    }:
    let
      all =
        if dynamic then
          cd.fileSdJobs {
            inherit directory;
            jobs = lib.unique (lib.sort (a: b: a < b) (cd.declared.jobsOf seen ++ listed));
          }
        else
          cd.staticJobs (cd.declared.targetsOf seen);
      sharing = sharingOf seen;
      share =
        labels: jobs:
        if lib.elem seen.server sharing then
          cd.sharded {
            inherit labels;
            members = lib.length sharing;
            number = indexOf seen.server sharing;
          } jobs
        else
          jobs;
      # Every server watches every server: that job is nobody's share.
      own = lib.partition (job: job.job_name == "prometheus") all;
      local = lib.partition isLocal additional;
    in
    {
      ours =
        own.right
        ++ share [
          "job"
          "instance"
        ] own.wrong;
      # A job of the user's has no `instance` before it is relabelled: what is scraped is what it goes by.
      additional =
        local.right
        ++ share [
          "job"
          "__address__"
          "__param_target"
        ] local.wrong;
    };
}
