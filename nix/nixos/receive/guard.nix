# Who reaches a store of this machine past the receiver, and could write under the name of any agent.
{ lib, config }:
let
  inherit (config) services;
  cd = import ../../lib;
  inherit (config.networking) firewall;
  flags = import ../flags.nix { inherit lib; };

  loki = (services.loki.configuration or { }).server or { };
  # The address on which each listens, as `host:port`; no host is every address.
  listens = {
    victoriametrics = services.victoriametrics.listenAddress;
    victorialogs = services.victorialogs.listenAddress;
    vmagent =
      let
        said = flags.valueOf services.vmagent.extraArgs "httpListenAddr";
      in
      if said == null then ":8429" else said;
    loki = "${loki.http_listen_address or ""}:${toString (loki.http_listen_port or 3100)}";
  };

  # placesOf : int -> [ string ]: from where a port can be reached.
  placesOf =
    port:
    let
      opens =
        open:
        lib.elem port (open.allowedTCPPorts or [ ])
        || lib.any (range: range.from <= port && port <= range.to) (open.allowedTCPPortRanges or [ ]);
      named = lib.attrNames (lib.filterAttrs (_: opens) firewall.interfaces);
    in
    if !firewall.enable then
      [ "everywhere, because networking.firewall is disabled" ]
    else if opens firewall then
      [ "everywhere" ]
    else
      lib.unique (named ++ lib.remove "lo" (firewall.trustedInterfaces or [ ]));
in
{
  names = lib.attrNames listens;

  # portOf : string -> int or null: the port on which a store of this machine listens; null: it does not run here.
  portOf =
    name:
    let
      said = builtins.match ".*:([0-9]+)" listens.${name};
    in
    if !(services.${name}.enable or false) || said == null then null else lib.toInt (lib.head said);

  # complaintsOf : string -> string -> [ string ]: what is wrong with a store. `hint` says how to close it.
  complaintsOf =
    name: hint:
    let
      found = builtins.match "(.*):([0-9]+)" listens.${name};
      places = placesOf (lib.toInt (lib.last found));
    in
    lib.optional
      (
        services.${name}.enable or false
        && found != null
        && !cd.service.isLoopback (lib.head found)
        && places != [ ]
      )
      "services.${name} listens on ${listens.${name}}, which other machines reach (${lib.concatStringsSep ", " places}): past the front, each of them can write under the name of any agent: ${hint}";
}
