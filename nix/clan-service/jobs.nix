# The share of jobs that a server scrapes, and which methods ask at run time.
{ lib, cd }:
let
  asked =
    settings:
    lib.optionals settings.enableAutoDiscovery (
      lib.intersectLists [ "tailscale" "dns" ] (cd.service.methodsOf settings)
    );

  # Loopback targets are each server's own, not shared.
  isLocal =
    job:
    let
      groups = if job.static_configs or null == null then [ ] else job.static_configs;
      targets = lib.concatMap (group: group.targets or [ ]) groups;
    in
    lib.any (target: cd.service.isLoopback (hostOf target)) targets;
  # A port may be a variable or have a path in VictoriaMetrics.
  hostOf = target: lib.head (builtins.split ":[^]]*$" target);
in
{
  # methodsOf : [ member ] -> [ string ]: the methods that ask at run time.
  methodsOf = mine: lib.unique (lib.concatMap (entry: asked entry.settings) mine);

  # additionalOf : [ member ] -> [ job ]
  additionalOf = lib.concatMap (
    entry: entry.settings.additionalScrapeConfigs ++ entry.settings.scrapeConfigs
  );

  # sharedOf : { sharing, ours, additional } -> { ours, additional }: the share of this server, where servers share.
  sharedOf =
    {
      sharing,
      ours,
      additional,
    }:
    let
      share =
        part: labels: if part == null then lib.id else cd.sharded (part // { inherit labels; });
      own = lib.partition (job: lib.elem job.job_name cd.unshared) ours;
      local = lib.partition isLocal additional;
    in
    {
      ours =
        own.right
        ++ share sharing.share [
          "job"
          "instance"
        ] own.wrong;
      # The user's own jobs have no `instance` before relabelling, so the address decides.
      additional =
        local.right
        ++ share sharing.ownShare [
          "job"
          "__address__"
          "__param_target"
        ] local.wrong;
    };
}
