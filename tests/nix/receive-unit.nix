# The units of `nix/nixos/receive/unit.nix` and their script, rendered without nixpkgs for Debian's programs.
{ kind, tokens }:
let
  unit = import ../../nix/nixos/receive/unit.nix;
  systemctl = "/usr/bin/systemctl";
  script = "/bin/sh /opt/share/receive";
in
{
  service = unit.service {
    inherit
      kind
      tokens
      script
      systemctl
      ;
    package = "/opt/share";
    config = "/opt/share/config.json";
    group = if kind == "nginx" then "www-data" else null;
  };
  reload = unit.reload script;
  vmauth = unit.vmauth {
    package = "/opt/share";
    kill = "/bin/kill";
    port = 8427;
    internalPort = 8426;
    tls = {
      certificate = "/opt/share/cert.pem";
      key = "/opt/share/key.pem";
    };
    group = null;
  };
  inherit (unit) credentials included user;
  file = unit.file kind;
  script = unit.script {
    inherit kind systemctl;
    coreutils = "/usr/bin";
    cmp = "/usr/bin/cmp";
  };
}
