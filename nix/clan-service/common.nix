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
        set = lib.isAttrs inner && !lib.isDerivation inner;
        nested = if option == null || !lib.isOption option then option else option.type.getSubOptions [ ];
      in
      if set then
        (
          if nested == null || nested == { } || nested == option && lib.isOption option then
            inner
          else
            handed nested inner
        )
      else if lib.isList inner then
        inner
      else
        mkDefault inner
    ) value;

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
    else if lib.elem "tailscale" methods then
      [ (config.services.tailscale.interfaceName or "tailscale0") ]
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

  unsaid =
    config: what: entries:
    map (entry: {
      assertion = entry.interfaces != null || !config.networking.firewall.enable;
      message = "clan-discovery: ${entry.where}: on which interfaces is port ${toString entry.port} open? Set `firewallInterfaces` in the settings of the role ${what}, for example [ \"wg0\" ], or [ ] to open none";
    }) entries;

  # Every method that a server of the clan uses: exporters are reached by it.
  methodsOf =
    view:
    lib.unique (
      lib.concatMap (
        instance: lib.concatMap cd.service.methodsOf (lib.attrValues (instance.server or { }))
      ) (lib.attrValues view.instances)
    );
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
