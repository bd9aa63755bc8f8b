# A machine in the role server: its jobs, the target files that fill them, and its own port.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (common) cd machine;
  shared = import ./common.nix { inherit lib cd; };
  jobs = import ./jobs.nix { inherit lib cd; };
  backends = import ./backends.nix { inherit lib cd; };
  check = import ./server-assertions.nix { inherit lib cd; };

  seen = view.of common options config;
  mine = lib.concatLists (
    lib.mapAttrsToList (
      instance: roles:
      lib.optional (roles ? server && roles.server ? ${machine}) {
        inherit instance;
        settings = roles.server.${machine};
        where = "instances.${instance}.roles.server.machines.${machine}.settings";
      }
    ) seen.instances
  );
  methods = jobs.methodsOf mine;
  dynamic = methods != [ ];

  found = jobs.jobsOf {
    inherit seen mine dynamic;
    inherit (config.services.clan-discovery.settings.output) directory;
    additional = jobs.additionalOf mine;
  };
  all = found.ours ++ found.additional;

  checked = check {
    inherit
      common
      config
      seen
      mine
      methods
      backends
      ;
    jobs = all;
    sharing = jobs.sharingOf seen;
  };
  ports = map (entry: {
    inherit (entry) where;
    port = backends.portIn entry.settings config;
    interfaces = shared.interfacesOf {
      inherit (entry) settings;
      inherit config methods;
    };
  }) mine;

  json = pkgs.formats.json { };
in
{
  imports = [ ../nixos ];

  config = lib.mkIf (mine != [ ]) {
    # The jobs are the machine's, once; each instance adds its own settings.
    services = lib.mkMerge (
      lib.imap0 (
        index: entry:
        backends.definition {
          inherit (entry) settings;
          inherit options;
          jobs = lib.optionals (index == 0) all;
        }
      ) mine
      ++ [
        {
          clan-discovery = lib.mkIf dynamic (
            lib.mkMerge (
              [
                {
                  enable = true;
                  network = lib.mkDefault (lib.elem "dns" methods);
                  settings = {
                    server = machine;
                    inventory = {
                      file = json.generate "clan-inventory.json" (cd.declared.inventoryOf seen);
                    }
                    // lib.optionalAttrs (seen.homes != { }) {
                      exports = json.generate "clan-exports.json" (cd.exports.reduced common.exports);
                    };
                  };
                }
              ]
              ++ map (entry: {
                mode = lib.mkDefault entry.settings.mode;
                settings = lib.optionalAttrs (entry.settings.policy != { }) { inherit (entry.settings) policy; };
              }) mine
            )
          );
        }
      ]
    );

    networking.firewall.interfaces = shared.opened ports;
    inherit (checked) warnings;
    assertions = checked.assertions ++ shared.unsaid config "server" ports;
  };
}
