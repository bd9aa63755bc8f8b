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
    listed = jobs.listedOf config.services.clan-discovery.settings;
  };
  checked = check {
    inherit
      common
      config
      seen
      mine
      methods
      backends
      ;
    inherit (found) ours additional;
    sharing = jobs.sharingOf seen;
  };
  ports = map (entry: {
    inherit (entry) where;
    port = backends.portIn entry.settings config;
    interfaces = shared.interfacesOf {
      inherit (entry) settings;
      inherit config;
      methods = cd.service.methodsOf entry.settings;
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
        if index > 0 then
          backends.further entry.settings
        else
          backends.first {
            inherit (entry) settings;
            inherit options;
            inherit (found) ours additional;
          }
      ) mine
      ++ [
        {
          clan-discovery = lib.mkIf dynamic (
            lib.mkMerge (
              [
                {
                  enable = true;
                  # Tailscale alone is asked through a file.
                  network = lib.mkDefault (
                    lib.elem "dns" methods
                    || config.services.clan-discovery.metrics.listen != null
                    || config.services.clan-discovery.settings.backends.dns != null
                  );
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
                settings.policy = lib.mapAttrs (
                  _: value: if lib.isAttrs value then value else lib.mkDefault value
                ) entry.settings.policy;
              }) (lib.take 1 mine)
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
