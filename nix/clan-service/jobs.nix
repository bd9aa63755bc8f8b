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
            lib.filterAttrs (name: settings: settings.sharding == "hashmod" && seen.machines ? ${name}) (
              instance.server or { }
            )
          )
        ) (lib.attrValues seen.instances)
      )
    );
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

  # jobsOf : { seen, mine, directory, dynamic } -> { ours, additional }
  jobsOf =
    {
      seen,
      mine,
      directory,
      dynamic,
      additional,
    }:
    let
      all =
        if dynamic then
          cd.fileSdJobs {
            inherit directory;
            jobs = cd.declared.jobsOf seen;
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
    in
    {
      ours =
        own.right
        ++ share [
          "job"
          "instance"
        ] own.wrong;
      # A job of the user's has no `instance` before it is relabelled: what is scraped is what it goes by.
      additional = share [
        "job"
        "__address__"
        "__param_target"
      ] additional;
    };
}
