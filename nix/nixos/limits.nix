# Checks of limits of alert rules (clan_discovery/data/limits.json), for the roles and for `settings`.
{ lib, cd }:
let
  suggest = import ./suggest.nix { inherit lib; };
  known = lib.attrNames cd.limits;

  # complaintOf : string -> string -> any -> [ string ]: what is wrong with one limit.
  complaintOf =
    option: name: value:
    let
      most = if (cd.limits.${name} or { unit = ""; }).unit == "percent" then 100 else null;
    in
    if !(cd.limits ? ${name}) then
      [
        "${option}.${name}: no alert rule reads a limit of this name: ${
          suggest name known "known: ${lib.concatStringsSep ", " known}"
        }"
      ]
    else if value == null then
      [ ]
    else if !(lib.isInt value || lib.isFloat value) then
      [ "${option}.${name}: must be a number" ]
    else if value < 0 || (most != null && value > most) then
      [
        "${option}.${name}: must be ${
          if value < 0 then "at least 0" else "at most ${toString most}"
        }, not ${builtins.toJSON value}"
      ]
    else
      [ ];

  # complaintsOf : string -> { <name> = number; } -> [ string ]
  complaintsOf =
    option: limits:
    if !lib.isAttrs limits then
      [ ]
    else
      lib.concatLists (lib.mapAttrsToList (complaintOf option) limits);
in
{
  inherit complaintsOf;

  # configComplaintsOf : settings.limits -> [ string ]: of `limits` in the config.
  configComplaintsOf =
    limits:
    let
      group =
        name:
        let
          found = limits.${name} or { };
        in
        if lib.isAttrs found then found else { };
    in
    if !lib.isAttrs limits then
      [ ]
    else
      complaintsOf "limits.default" (group "default")
      ++
        lib.concatMap
          (
            kind:
            lib.concatLists (lib.mapAttrsToList (name: complaintsOf "limits.${kind}.${name}") (group kind))
          )
          [
            "tags"
            "machines"
          ];

  # roleComplaintsOf : view -> settings -> [ string ]: of a member of the role exporter.
  roleComplaintsOf =
    view: settings:
    let
      machines = lib.attrNames view.machines;
    in
    complaintsOf "limits" settings.limits
    ++ map (
      name:
      "needs: the clan has no machine '${name}': ${suggest name machines "name a machine of the clan"}"
    ) (lib.filter (name: !lib.elem name machines) settings.needs);
}
