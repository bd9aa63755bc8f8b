# The setting `jobs` of a server: scrape config that is merged into the generated jobs.
{
  lib,
  cd,
  mine,
  discovery,
  render,
}:
let
  check = import ../nixos/jobs.nix { inherit lib cd; };
  inherit (import ./messages.nix { inherit lib; }) refuse;
  complaints = lib.concatMap (
    entry:
    map (what: "${entry.where}.${what}") (
      check.refused entry.settings.jobs ++ check.unknown entry.settings.jobs render.declared
    )
  ) mine;
in
{
  # The machine's own configuration wins. What is refused is left out: the module would refuse it again.
  settings = lib.mkIf (complaints == [ ]) (
    lib.mapAttrsRecursive (
      _: value: if lib.isList value then value else lib.mkDefault value
    ) (lib.head mine).settings.jobs
  );

  assertions =
    map refuse complaints
    ++ map (what: refuse "services.clan-discovery.settings.${what}") (
      check.unknown discovery.settings.jobs render.declared
    );

  warnings = map (what: "clan-discovery: services.clan-discovery.settings.${what}") (
    check.unused discovery.settings.jobs render.jobs
  );
}
