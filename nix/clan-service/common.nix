# What both roles share: opening ports, and passing settings to NixOS.
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

  # interfacesOf : { settings, methods, config } -> [ string ] or null
  # Null if it is not set: an assertion, and no open port.
  interfacesOf =
    {
      settings,
      methods,
      config,
    }:
    if settings.firewallInterfaces != null then
      settings.firewallInterfaces
    else if lib.elem "tailscale" methods && (config.services.tailscale.enable or false) then
      # In userspace networking, tailscaled passes connections to loopback: no port is opened.
      lib.remove "userspace-networking" [ (config.services.tailscale.interfaceName or "tailscale0") ]
    else
      null;

  # opened : [ { interfaces, port } ] -> networking.firewall.interfaces
  opened =
    entries:
    lib.mkMerge (
      lib.concatMap (
        entry:
        map (interface: { ${interface}.allowedTCPPorts = [ entry.port ]; }) (
          if entry.interfaces == null then [ ] else entry.interfaces
        )
      ) entries
    );

  # Linux allows 15 characters (IFNAMSIZ); with a longer name the whole firewall would not start.
  unsaid =
    config: what: entries:
    lib.concatMap (
      entry:
      map
        (name: {
          assertion = false;
          message = "clan-discovery: ${entry.where}.firewallInterfaces: invalid interface name '${name}': it must have 1 to 15 characters";
        })
        (
          lib.filter (name: lib.stringLength name > 15 || name == "") (
            if entry.interfaces == null then [ ] else entry.interfaces
          )
        )
    ) entries
    ++ map (entry: {
      assertion = entry.interfaces != null || !config.networking.firewall.enable;
      message = "clan-discovery: ${entry.where}: no interface is known on which to open port ${toString entry.port}: set `firewallInterfaces` in the settings of the role ${what}, for example [ \"wg0\" ], or [ ] to open none";
    }) entries;

  # Names in the README of the service that this one replaces, with which node exporter would not start.
  misnamed = {
    disk = "diskstats";
    memory = "meminfo";
    network = "netdev";
  };

  # The methods of all servers of the clan.
  methodsOf =
    view: lib.unique (lib.concatMap (member: cd.service.methodsOf member.settings) view.servers);

  plainOnDarwin =
    entry:
    "${entry.where}.security is \"${entry.exporter.security}\", but ${entry.machine} is a darwin machine, whose exporter serves plain HTTP: set `security = lib.mkForce \"none\"` there";
in
{
  inherit
    handed
    interfacesOf
    methodsOf
    misnamed
    opened
    plainOnDarwin
    unsaid
    ;
}
