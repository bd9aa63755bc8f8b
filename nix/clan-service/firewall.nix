# The ports of this machine's exporters and servers: open on named interfaces, or on those of the networks in which the
# servers reach it.
{
  config,
  lib,
  machine,
  networks,
  ...
}:
let
  inherit (config.networking) firewall;
  inherit (import ./messages.nix { inherit lib; }) refuse;

  # All interfaces with a prefix are `zt+` for iptables and `zt*` for nftables.
  prefix =
    from: to: name:
    if lib.hasSuffix from name then "${lib.removeSuffix from name}${to}" else name;
  interfacesOf =
    settings:
    if settings.firewallInterfaces == null then
      networks.interfaces
    else
      map (prefix "*" "+") settings.firewallInterfaces;
  spelled = if firewall.backend or "iptables" == "nftables" then prefix "+" "*" else lib.id;

  # Linux allows 15 characters (IFNAMSIZ), and neither `all` nor `default`. NixOS's firewall takes `default` for every
  # interface, and would forget its own ports there.
  isName =
    name:
    builtins.match "[A-Za-z0-9_.@-]{0,14}[A-Za-z0-9_.@+-]" name != null
    && !lib.elem name [
      "all"
      "default"
    ];

  complaintsOf =
    role: entry:
    let
      interfaces = interfacesOf entry.settings;
      bad = lib.filter (name: !isName name) interfaces;
      absent = lib.filter networks.isAbsent interfaces;
    in
    if interfaces == null then
      [
        "${entry.where}: no interface is known on which to open port ${toString entry.port}: ${networks.unknown}: ${lib.optionalString networks.lacksTailscale "set services.tailscale.enable = true, or "}set `firewallInterfaces` in the settings of the role ${role}, for example [ \"wg0\" ], or [ ] to open none"
      ]
    else
      # With a name that Linux does not allow, the whole firewall would not start.
      map (
        name:
        "${entry.where}.firewallInterfaces: invalid interface name '${name}': it must have 1 to 15 letters, digits, '_', '.', '@' or '-', and must not be `all` or `default`"
      ) bad
      ++
        lib.optional (absent != [ ] && absent == interfaces)
          "${entry.where}.firewallInterfaces: ${machine} has no interface ${lib.concatStringsSep ", " absent}: add it to the network, or name an interface that it has";

  portOf =
    { port, ... }@entry:
    {
      allowedTCPPorts = [ port ];
    }
    // lib.optionalAttrs (entry.udp or false) { allowedUDPPorts = [ port ]; };
in
{
  # opened : [ { settings, port, udp ? false } ] -> networking.firewall.interfaces
  opened =
    entries:
    lib.mkMerge (
      lib.concatMap (
        entry:
        let
          interfaces = interfacesOf entry.settings;
        in
        map (name: { ${spelled name} = portOf entry; }) (
          lib.filter isName (if interfaces == null then [ ] else interfaces)
        )
      ) entries
    );

  # assertions : string -> [ { settings, where, port } ] -> [ assertion ]: of members of a role.
  assertions =
    role: entries:
    map refuse (lib.optionals firewall.enable (lib.concatMap (complaintsOf role) entries));
}
