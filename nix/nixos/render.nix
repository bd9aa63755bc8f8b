# Settings become a file that was checked.
{ lib, pkgs }:
let
  json = pkgs.formats.json { };

  # What an option was left at null is not said; a null that means something (`shrink_after.rounds`) stands where nothing
  # is declared.
  said = lib.filterAttrs (_: value: value != null);
  each = sets: if sets == null then null else lib.mapAttrs (_: said) sets;
  plain =
    settings:
    said (
      settings
      // {
        backends = said (settings.backends // { tailscale = each settings.backends.tailscale; });
        exporters = each settings.exporters;
        inventory = if settings.inventory == null then null else said settings.inventory;
      }
    );

  # A path in the store can be read where the file is built; one that appears at run time cannot.
  inStore = path: path == null || lib.hasPrefix builtins.storeDir (toString path) || lib.isPath path;
in
{
  # config : cfg -> derivation or path
  config =
    cfg:
    let
      raw = json.generate "clan-discovery-config.json" (plain cfg.settings);
      inventory = cfg.settings.inventory;
      checkable =
        inventory == null
        || (
          inventory.flake == null
          && lib.all inStore [
            inventory.file
            inventory.settings
            inventory.exports
          ]
        );
    in
    if cfg.checkConfig && checkable then
      pkgs.runCommand "clan-discovery.json" { nativeBuildInputs = [ cfg.package ]; } ''
        clan-discovery check --config ${raw}
        cp ${raw} $out
      ''
    else
      raw;
}
