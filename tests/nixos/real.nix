# A real NixOS, nix-darwin and clan: whole systems of nixpkgs and clan-core, with our modules from this checkout.
arguments:
let
  flakes = import ./flakes.nix arguments;
  inherit (flakes) nixpkgs' clan-core discovery;
  inherit (nixpkgs') lib;

  # The checkout lacks Haskell's packages.
  withoutHaskell = final: _: {
    shellcheck = final.hello // {
      compiler.bootstrapAvailable = false;
    };
    shellcheck-minimal = final.shellcheck;
  };
  # The smallest systems that have a toplevel.
  linux = {
    nixpkgs.hostPlatform = "x86_64-linux";
    nixpkgs.overlays = [ withoutHaskell ];
    boot.loader.grub.enable = false;
    fileSystems."/" = {
      device = "none";
      fsType = "tmpfs";
    };
    system.stateVersion = "26.05";
    documentation.enable = false;
    documentation.nixos.enable = false;
  };
  darwin = {
    nixpkgs.hostPlatform = "aarch64-darwin";
    nixpkgs.overlays = [ withoutHaskell ];
    # A darwin system of its own, without the overlay.
    system.tools.darwin-uninstaller.enable = false;
    system.stateVersion = 6;
    documentation.enable = false;
  };
in
rec {
  inherit flakes lib;

  evaluated =
    modules:
    import (nixpkgs'.outPath + "/nixos/lib/eval-config.nix") {
      system = null;
      modules = [
        linux
        { networking.hostName = "probe"; }
        discovery.nixosModules.default
      ]
      ++ modules;
    };

  # nixos : [ module ] -> config: a machine with the NixOS module, without a clan.
  nixos = modules: (evaluated modules).config;

  # All options of NixOS.
  inherit (evaluated [ ]) options;

  # clan : { inventory; machines.<m> = module; modules; directory; domain; inputs } -> the clan's config
  # `machines` are the machines' own configurations. `modules` are services of the clan itself; `inputs` are more
  # flakes beside `clan-discovery`. `directory` has the clan's `vars/`.
  clan =
    {
      inventory,
      machines ? { },
      modules ? { },
      directory ? "/var/empty",
      domain ? "home.arpa",
      inputs ? { },
    }:
    (clan-core.lib.clan {
      self.inputs = {
        clan-discovery = discovery;
        nixpkgs = nixpkgs';
      }
      // inputs;
      inherit directory modules;
      meta.name = "demo";
      meta.domain = domain;
      inventory = inventory;
      machines = lib.mapAttrs (name: machine: {
        imports = [
          (if machine.machineClass or "nixos" == "darwin" then darwin else linux)
          (machines.${name} or { })
        ];
      }) inventory.machines;
    }).config;

  # configs : clan -> { <m> = config; }: every machine, NixOS or darwin.
  configs =
    found:
    lib.mapAttrs (_: system: system.config) (found.nixosConfigurations // found.darwinConfigurations);

  # failed : config -> [ string ]: the messages of failing assertions.
  failed = config: map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);

  # refused, warned : system -> [ string ]: the failing assertions and the warnings of our modules alone. Those of NixOS
  # evaluate programs and units that the test does not need.
  refused =
    system: map (one: one.message) (lib.filter (one: !one.assertion) (own system.options.assertions));
  warned = system: own system.options.warnings;
  own =
    option:
    lib.concatMap (
      one: lib.optionals (lib.hasPrefix (toString ../../nix) (toString one.file)) one.value
    ) option.definitionsWithLocations;

  # unit : system -> string -> string: the text of one service.
  unit =
    system: name:
    let
      utils = import (nixpkgs'.outPath + "/nixos/lib/utils.nix") {
        inherit lib;
        inherit (system) config;
        pkgs = null;
      };
    in
    (utils.systemdUtils.lib.serviceToUnit system.config.systemd.services.${name}).text;

  # jobs : config -> [ scrape config ]: Prometheus's, without keys that are not set.
  jobs =
    config:
    map (lib.filterAttrsRecursive (_: value: value != null)) config.services.prometheus.scrapeConfigs;

  # ports : config -> { <interface> = [ port ]; }: the open TCP ports; `all` is every interface.
  ports =
    config:
    lib.filterAttrs (_: open: open != [ ]) (
      {
        all = config.networking.firewall.allowedTCPPorts;
      }
      // lib.mapAttrs (_: interface: interface.allowedTCPPorts) config.networking.firewall.interfaces
    );

  # toplevel : config -> string: the derivation of the whole system; throws on a failing assertion.
  toplevel = config: config.system.build.toplevel.drvPath;
}
