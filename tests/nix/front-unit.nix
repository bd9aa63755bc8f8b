# The units of `nix/nixos/front/unit.nix` and their script, rendered without nixpkgs for Debian's programs.
{ kind }:
let
  unit = import ../../nix/nixos/front/unit.nix;
  systemctl = "/usr/bin/systemctl";
in
{
  service = unit.service {
    inherit kind;
    script = "/bin/sh /opt/share/front";
  };
  changed = unit.changed systemctl;
  path = unit.path kind;
  source = unit.source kind;
  included = unit.included unit.home kind;
  script = unit.script {
    inherit kind systemctl;
    coreutils = "/usr/bin";
    cmp = "/usr/bin/cmp";
  };
}
