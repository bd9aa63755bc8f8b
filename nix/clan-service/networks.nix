# The networks in which this machine has its addresses, and their interfaces.
{
  common,
  config,
  lib,
  seen,
  ...
}:
let
  inherit (common) cd machine;
  inherit (config) networking services;
  members = cd.exports.networks common.exports;

  # kinds.<service> : instance -> { interface, present }
  # The interface that a service of clan-core makes, and whether this machine has it.
  kinds = {
    mycelium = _: {
      interface = "mycelium";
      present = services.mycelium.enable or false;
    };
    wireguard = instance: {
      interface = instance;
      present = networking.wireguard.interfaces or { } ? ${instance};
    };
    yggdrasil = _: {
      interface = services.yggdrasil.settings.IfName or "ygg";
      present = services.yggdrasil.enable or false;
    };
    zerotier = _: {
      interface = "zt+";
      present = services.zerotierone.enable or false;
    };
  };
  tailscale = {
    interface = services.tailscale.interfaceName or "tailscale0";
    present = services.tailscale.enable or false;
  };
  isKnown = network: kinds ? ${network.service};
  interfaceOf = network: kinds.${network.service} network.instance;

  # The network whose address clan-discovery uses for a machine.
  networkOf = name: lib.findFirst (_: true) null (members.${name} or [ ]);
  own = networkOf machine;

  # What gives a server the address of this machine.
  sourceOf =
    settings:
    let
      methods = cd.service.methodsOf settings;
    in
    if lib.elem "tailscale" methods && tailscale.present then
      "tailscale"
    else if settings.snapshot != null then
      "a snapshot"
    else if lib.elem "dns" methods then
      "DNS"
    else
      "exports";
  # Where every server is switched off, machines keep the ports that they have with it.
  servers = if seen.servers == [ ] then seen.off else seen.servers;
  # A mistyped method of one server must not fail this machine, unless no other server tells.
  readable = lib.filter (member: (builtins.tryEval (sourceOf member.said)).success) servers;
  sources = lib.unique (
    map (member: sourceOf member.said) (if readable == [ ] then servers else readable)
  );
  from = source: lib.elem source sources;
  asksTailscale = lib.any (
    member: lib.elem "tailscale" (cd.service.methodsOf member.settings)
  ) servers;
in
{
  inherit own sources;

  # addressOf : string -> string: where this machine finds another one; an IPv6 address in brackets.
  addressOf =
    name:
    let
      network = networkOf name;
      host = if network == null then "${name}.${seen.domain}" else network.host;
    in
    if cd.service.isIpv6 host then "[${host}]" else host;

  # interfaces : [ string ] or null: on which the servers reach this machine. Null if none is known.
  interfaces =
    let
      # In userspace networking, tailscaled passes connections to loopback: no port is opened.
      ofTailscale = lib.optionals (from "tailscale") (
        lib.remove "userspace-networking" [ tailscale.interface ]
      );
      ofOwn = lib.optionals (from "exports" && own != null && isKnown own && (interfaceOf own).present) [
        (interfaceOf own).interface
      ];
    in
    if ofOwn == [ ] && !from "tailscale" then null else lib.unique (ofTailscale ++ ofOwn);

  # unknown : string: why `interfaces` is null.
  unknown =
    let
      all = lib.unique (map (network: network.network) (lib.concatLists (lib.attrValues members)));
    in
    if sources == [ ] then
      "no machine has the role server"
    else if !from "exports" then
      "the address of ${machine} comes from ${lib.concatStringsSep " and " sources}"
    else if own == null then
      "${machine} has no address in a network that the clan exports (${
        if all == [ ] then "none" else lib.concatStringsSep ", " all
      }), and ${
        if asksTailscale then
          "services.tailscale.enable is false"
        else
          "no server's discoveryMethod is tailscale"
      }"
    else if isKnown own then
      "${machine} has its address in ${own.network}, whose interface ${(interfaceOf own).interface} it does not have"
    else
      "${machine} has its address in ${own.network}, whose interface is not known";

  # lacksTailscale : bool: a server asks Tailscale, which this machine does not run.
  lacksTailscale = asksTailscale && !tailscale.present;

  # isAbsent : string -> bool: the interface is one of the clan's networks, and this machine does not have it.
  isAbsent =
    name:
    let
      all = [ tailscale ] ++ map interfaceOf (lib.filter isKnown (cd.exports.scopes common.exports));
      named = lib.filter (one: one.interface == name) all;
    in
    named != [ ] && !lib.any (one: one.present) named;

  # warningsOf : [ string ] -> [ string ]: those of these targets whose address is in a network without this machine.
  warningsOf =
    names:
    let
      shared = network: lib.any (mine: mine.network == network.network) (members.${machine} or [ ]);
      beyond = lib.filter (
        name: name != machine && networkOf name != null && !shared (networkOf name)
      ) names;
      said = map (name: "${name} (${(networkOf name).network})") beyond;
    in
    lib.optional (beyond != [ ])
      "clan-discovery: ${machine} scrapes ${lib.concatStringsSep ", " said} in networks that it is not in: add ${machine} to them";
}
