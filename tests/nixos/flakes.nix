# The checkouts as flakes: their real `outputs`, with the inputs given here, so that nothing is fetched or locked.
{
  nixpkgs,
  clanCore ? null,
  # the directory of clan-core's own inputs
  inputs ? null,
}:
let
  # flake : path -> { <input> = flake; } -> flake
  flake =
    path: given:
    let
      outputs = (import (path + "/flake.nix")).outputs (given // { inherit self; });
      self = outputs // {
        _type = "flake";
        # A string: as a path, the checkout would be copied into the store.
        outPath = toString path;
        sourceInfo.outPath = toString path;
        inputs = given;
        inherit outputs;
        lastModified = 0;
        lastModifiedDate = "19700101000000";
      };
    in
    self;
  input = name: flake (inputs + "/${name}");
in
rec {
  inherit flake;

  nixpkgs' = flake nixpkgs { };
  discovery = flake ../.. { nixpkgs = nixpkgs'; };

  # `nix-select` and `data-mesher` are in no public repository that can be had; no test needs them.
  clan-core = flake clanCore rec {
    nixpkgs = nixpkgs';
    nix-darwin = input "nix-darwin" { inherit nixpkgs; };
    flake-parts = input "flake-parts" { nixpkgs-lib = nixpkgs; };
    sops-nix = input "sops-nix" { inherit nixpkgs; };
    disko = input "disko" { inherit nixpkgs; };
    treefmt-nix = input "treefmt-nix" { inherit nixpkgs; };
    systems.outPath = inputs + "/systems";
    nix-select = { };
    data-mesher.nixosModules.data-mesher = { };
  };
}
