# What both roles share: where ports are opened, and how settings are handed to NixOS.
{ lib, cd }:
let
  inherit (lib) mkDefault;

  # handed : options -> value -> definitions
  # Scalars by mkDefault, so that what the machine's own configuration says wins; lists as they are, for a mkDefault on
  # a list would vanish beside one definition. It follows the options, for in a value that is no option of its own
  # (`attrs`) a mkDefault would stay where it stands.
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
  # below : type -> set -> definitions: the sets that this type is made of, as far as it looks into them.
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
  # Null where nobody said: an assertion, and no open port.
  interfacesOf =
    {
      settings,
      methods,
      config,
    }:
    if settings.firewallInterfaces != null then
      settings.firewallInterfaces
    else if lib.elem "tailscale" methods && (config.services.tailscale.enable or false) then
      # Without an interface of its own, tailscaled hands connections to the loopback: no port is to be opened.
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

  # An interface's name has 15 characters (Linux, IFNAMSIZ): with a longer one the whole firewall would not start.
  unsaid =
    config: what: entries:
    lib.concatMap (
      entry:
      map
        (name: {
          assertion = false;
          message = "clan-discovery: ${entry.where}.firewallInterfaces: '${name}' is no name of a network interface: it has 1 to 15 characters";
        })
        (
          lib.filter (name: lib.stringLength name > 15 || name == "") (
            if entry.interfaces == null then [ ] else entry.interfaces
          )
        )
    ) entries
    ++ map (entry: {
      assertion = entry.interfaces != null || !config.networking.firewall.enable;
      message = "clan-discovery: ${entry.where}: on which interfaces is port ${toString entry.port} open? Set `firewallInterfaces` in the settings of the role ${what}, for example [ \"wg0\" ], or [ ] to open none";
    }) entries;

  # Every method that a server of the clan uses: exporters are reached by it.
  methodsOf =
    view: lib.unique (lib.concatMap (member: cd.service.methodsOf member.settings) view.servers);
in
{
  inherit
    handed
    interfacesOf
    methodsOf
    opened
    unsaid
    ;
}
