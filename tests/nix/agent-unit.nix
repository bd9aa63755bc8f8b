# The units of `nix/nixos/agent/unit.nix` and their script, rendered without nixpkgs for this machine's programs.
{
  vmagent,
  vlagent,
  url,
}:
let
  unit = import ../../nix/nixos/agent/unit.nix;
  script = "/bin/sh /opt/share/cursor";
  given = {
    urls = [ url ];
    tokenFile = "/opt/share/secret/token";
    maxDiskUsage = "1GiB";
  };
in
{
  inherit (unit) journal names;
  agent = unit.agent (
    given
    // {
      inherit vmagent;
      config = "/opt/share/scrape.yaml";
    }
  );
  logs = unit.logs (given // { inherit vlagent script; });
  upload = unit.upload script;
  cursor = unit.cursor script;
  inherit (unit) timer;
  script = unit.script {
    coreutils = "/usr/bin";
    grep = "/usr/bin/grep";
    cmp = "/usr/bin/cmp";
    curl = "/usr/bin/curl";
    journalctl = "/usr/bin/journalctl";
  };
}
