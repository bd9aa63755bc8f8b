# The systemd units of `nix/nixos/unit.nix`, rendered without nixpkgs.
{
  program,
  config,
  mode,
  network ? false,
  settings ? { },
  listen ? null,
  verifyInterval ? null,
  watchdog ? "5min",
  onCalendar ? "*:*:0/30",
}:
let
  unit = import ../../nix/nixos/unit.nix;
  cfg = {
    inherit
      mode
      network
      verifyInterval
      watchdog
      onCalendar
      ;
    package = program;
    interval = "30s";
    jitter = "0";
    metrics = {
      textfile = true;
      inherit listen;
    };
    settings = {
      output.directory = "/var/lib/clan-discovery/targets";
      state = "/var/lib/clan-discovery/state";
      web = null;
    }
    // settings;
  };
in
{
  service = unit.service {
    inherit cfg;
    configFile = config;
    kill = "/usr/bin/kill";
  };
  timer = unit.timer cfg;
  unreachable = unit.unreachable "/usr/sbin/ip";
}
