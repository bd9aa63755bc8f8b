# The build of a server without a discovery method, with the real `runCommand` of a local store. The package is replaced
# by a program that runs this checkout.
{
  nixpkgsLib,
  # the command of that program
  program,
  # merged settings by instance, role and machine
  instances,
  exports ? { },
  # a replacement for the list of jobs
  jobs ? [ ],
  # whether the list of jobs is empty
  noJobs ? false,
  # machines beside db, monitor and web
  machines ? { },
}:
let
  t = import ./machine.nix { inherit nixpkgsLib; };
  inherit (t) lib;

  run =
    name: environment: script:
    derivation (
      environment
      // {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [
          "-euc"
          ''
            PATH=/usr/bin:/bin
            for input in ''${nativeBuildInputs-}; do PATH=$input/bin:$PATH; done
            ${script}
          ''
        ];
      }
    );
  package = run "clan-discovery" { } ''
    mkdir -p $out/bin
    printf '#!/bin/sh\nexec %s "$@"\n' ${lib.escapeShellArg program} > $out/bin/clan-discovery
    chmod +x $out/bin/clan-discovery
  '';
  config = t.member {
    inherit instances exports;
    machine = "monitor";
    machines =
      lib.genAttrs [ "db" "monitor" "web" ] (_: {
        tags = [
          "all"
          "nixos"
        ];
        machineClass = "nixos";
      })
      // machines;
    modules = [
      (
        { lib, ... }:
        {
          services.clan-discovery = {
            inherit package;
            settings.backends.static.lab.targets = lib.mkIf (!noJobs) { nas = [ "nas:9100" ]; };
            jobs = lib.mkIf (noJobs || jobs != [ ]) (lib.mkForce jobs);
          };
          _module.args.pkgs = lib.mkForce {
            buildPackages.runCommand = run;
            stdenv.buildPlatform.canExecute = _: true;
            stdenv.hostPlatform = { };
            formats.json = { }: {
              type = lib.types.anything;
              generate = name: value: builtins.toFile name (builtins.toJSON value);
            };
          };
        }
      )
    ];
  };
in
{
  targets = config.environment.etc."clan-discovery/targets".source;
}
