# The backend Alloy: the jobs as a file beside the user's config in /etc/alloy.
{ lib, cd }:
{
  config,
  seen,
  mine,
  jobs,
}:
let
  first = lib.head mine;
  named = lib.unique (lib.concatMap (entry: entry.settings.forwardTo) mine);
  forwardTo =
    if named != [ ] then
      named
    else
      lib.optional seen.isMonitored "prometheus.remote_write.mimir.receiver";
  # A component is not its receiver.
  isReceiver =
    name:
    builtins.match "[a-z_]+(\\.[A-Za-z0-9_]+)+" name != null
    && builtins.match "prometheus\\.[a-z_]+(\\.[A-Za-z0-9_]+)?" name == null;
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf;
in
{
  etc."alloy/clan-discovery.alloy".text = cd.alloy {
    inherit jobs forwardTo;
    global = first.settings.globalConfig or { };
  };

  assertions =
    # The service `monitoring` sets its own `configPath`, but starts Alloy with /etc/alloy.
    refuseIf
      (
        config.services.alloy.enable
        && !lib.hasInfix " /etc/alloy " (toString config.systemd.services.alloy.serviceConfig.ExecStart)
      )
      "services.alloy.configPath is ${toString config.services.alloy.configPath} on ${seen.server}, but the jobs are in /etc/alloy: remove it, and set environment.etc.\"alloy/config.alloy\""
    ++
      refuseIf (forwardTo == [ ])
        "${first.where}: Alloy stores nothing: set forwardTo = [ \"prometheus.remote_write.<label>.receiver\" ] with a component of /etc/alloy, or give ${seen.server} the role client of clan-core's service monitoring"
    ++ map (
      name:
      refuse "${first.where}.forwardTo: '${name}' is no receiver of Alloy: write for example prometheus.remote_write.default.receiver"
    ) (lib.filter (name: !isReceiver name) forwardTo)
    ++ map (what: refuse "${first.where}: ${what}") (cd.alloyComplaints jobs);
}
