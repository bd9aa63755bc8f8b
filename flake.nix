{
  description = "Service discovery for clan and NixOS: the inventory is the list, the network is the address book";

  # Only packages, checks and shells need it; a clan that takes the service gives its own (`inputs.nixpkgs.follows`).
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "aarch64-darwin"
        "aarch64-linux"
        "x86_64-darwin"
        "x86_64-linux"
      ];
      forSystems = nixpkgs.lib.genAttrs systems;
      each = f: forSystems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      # On builtins alone.
      lib = import ./nix/lib;

      # `module.input = "clan-discovery"` of an inventory instance; clan-core need not be known here.
      clan.modules.prometheus = ./nix/clan-service;

      nixosModules.clan-discovery = ./nix/nixos;
      nixosModules.default = self.nixosModules.clan-discovery;
      # For machines that only expose services: options, and nothing that is built or run.
      nixosModules.expose = ./nix/nixos/expose.nix;
      darwinModules.expose = ./nix/nixos/expose.nix;

      overlays.default = final: _: { clan-discovery = final.callPackage ./nix/package.nix { }; };

      packages = each (pkgs: rec {
        clan-discovery = pkgs.callPackage ./nix/package.nix { };
        default = clan-discovery;
      });

      # tests/clan/flake.nix checks the clan service, because it needs clan-core.
      checks = forSystems (
        system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
        in
        {
          lib =
            let
              failed = import ./nix/lib/tests.nix { inherit (nixpkgs) lib; };
            in
            pkgs.runCommand "nix-lib" { } (
              if failed == [ ] then "touch $out" else throw "nix/lib: ${builtins.toJSON failed}"
            );
          package = self.packages.${system}.clan-discovery;
          format = pkgs.runCommand "nix-format" { nativeBuildInputs = [ pkgs.nixfmt ]; } ''
            nixfmt --check $(find ${self} -name '*.nix')
            touch $out
          '';
        }
        // nixpkgs.lib.optionalAttrs (nixpkgs.lib.hasSuffix "-linux" system) {
          static = import ./nix/static-test.nix {
            inherit pkgs;
            module = self.nixosModules.default;
          };
          vm = pkgs.testers.runNixOSTest (import ./nix/vm-test.nix { module = self.nixosModules.default; });
        }
      );

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ (pkgs.callPackage ./nix/package.nix { }) ];
          packages = [
            pkgs.gnumake
            pkgs.nixfmt
            pkgs.prometheus.cli
            pkgs.pyright
            pkgs.python3Packages.mypy
            pkgs.ruff
          ];
        };
      });

      formatter = each (pkgs: pkgs.nixfmt-tree);
    };
}
