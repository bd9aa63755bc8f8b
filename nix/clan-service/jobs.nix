# How servers share jobs, and which methods ask at run time.
{ lib, cd }:
let
  asked =
    settings:
    lib.optionals settings.enableAutoDiscovery (
      lib.intersectLists [ "tailscale" "dns" ] (cd.service.methodsOf settings)
    );

  # Servers that share the targets; sorted, so that each has the same list.
  sharingOf =
    seen:
    let
      shares =
        member:
        member.settings.sharding == "hashmod"
        && (seen.machines.${member.machine}.machineClass or "") == "nixos";
    in
    lib.unique (lib.sort (a: b: a < b) (map (member: member.machine) (lib.filter shares seen.servers)));

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

  # shareOf : seen -> { members, number } or null: the share of this server.
  shareOf =
    seen:
    let
      sharing = sharingOf seen;
    in
    if lib.elem seen.server sharing then
      {
        members = lib.length sharing;
        number = lib.lists.findFirstIndex (name: name == seen.server) null sharing;
      }
    else
      null;
in
{
  inherit shareOf sharingOf;

  # methodsOf : [ member ] -> [ string ]: the methods that ask at run time.
  methodsOf = mine: lib.unique (lib.concatMap (entry: asked entry.settings) mine);

  # additionalOf : [ member ] -> [ job ]
  additionalOf = lib.concatMap (
    entry: entry.settings.additionalScrapeConfigs ++ entry.settings.scrapeConfigs
  );

  # sharedOf : { seen, ours, additional } -> { ours, additional }: the share of this server, where servers share.
  sharedOf =
    {
      seen,
      ours,
      additional,
    }:
    let
      mine = shareOf seen;
      share = labels: if mine == null then lib.id else cd.sharded (mine // { inherit labels; });
      own = lib.partition (job: lib.elem job.job_name cd.unshared) ours;
      local = lib.partition isLocal additional;
    in
    {
      ours =
        own.right
        ++ share [
          "job"
          "instance"
        ] own.wrong;
      # The user's own jobs have no `instance` before relabelling, so the address decides.
      additional =
        local.right
        ++ share [
          "job"
          "__address__"
          "__param_target"
        ] local.wrong;
    };
}
