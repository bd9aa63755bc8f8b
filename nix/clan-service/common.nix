# Settings as definitions of NixOS and nix-darwin.
{ lib, cd }:
let
  inherit (lib) mkDefault;

  # handed : options -> value -> definitions
  # Scalars get mkDefault, so that the machine's own configuration wins. Lists do not, because any other definition would
  # replace them. It follows the options, because inside a plain value (`attrs`) a mkDefault would not be resolved.
  handed =
    options: value:
    lib.mapAttrs (
      name: inner:
      let
        option = options.${name} or null;
      in
      if !isSet inner then
        scalar inner
      else if option == null then
        inner
      else if lib.isOption option then
        below option.type inner
      else
        handed option inner
    ) value;
  isSet = value: lib.isAttrs value && !lib.isDerivation value;
  scalar = value: if lib.isList value then value else mkDefault value;
  # below : type -> set -> definitions: the same for the sets inside a value of this type.
  below =
    type: value:
    let
      element = type.nestedTypes.elemType;
    in
    if type.name == "nullOr" then
      below element value
    else if type.name == "attrsOf" || type.name == "lazyAttrsOf" then
      lib.mapAttrs (_: inner: if isSet inner then below element inner else scalar inner) value
    else if type.name == "submodule" then
      handed (type.getSubOptions [ ]) value
    else
      value;

  # Names in the README of the service that this one replaces, with which node exporter would not start.
  misnamed = {
    disk = "diskstats";
    memory = "meminfo";
    network = "netdev";
  };

  # unread : [ member ] -> [ warning ]: of the role exporter.
  unread = lib.concatMap (
    member:
    let
      names = cd.service.unreadIn member.settings;
    in
    lib.optional (names != [ ])
      "clan-discovery: ${member.where}: ignored, because `exporterType` is not set: ${lib.concatStringsSep ", " names}: write them in exporters.<type>, or correct their names"
  );

  # doubts : [ member ] -> [ warning ]: what is probably a mistake in the services that members expose.
  doubts = lib.concatMap (
    member:
    map (what: "clan-discovery: ${member.where}: ${what}") (
      cd.exposed.doubtsOf (member.settings.expose or { })
    )
  );

  plainOnDarwin =
    entry:
    "${entry.where}.security is \"${entry.exporter.security}\", but ${entry.machine} is a darwin machine, whose exporter serves plain HTTP: set `security = lib.mkForce \"none\"` there";
in
{
  inherit
    doubts
    handed
    misnamed
    plainOnDarwin
    unread
    ;
}
