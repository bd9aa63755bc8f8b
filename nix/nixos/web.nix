# Where `settings.web` listens, and its port in the firewall.
{ lib, config }:
let
  cd = import ../lib;
  cfg = config.services.clan-discovery;
  said = cfg.settings.web;
  # Null if it is no address with a port, which `check` refuses.
  endpoint = if said == null then null else cd.splitAddress said.listen;
  onLoopback = endpoint != null && cd.service.isLoopback endpoint.host;
  port = if endpoint == null then null else endpoint.port;
  interface = config.services.tailscale.interfaceName or "tailscale0";
  # tailscaled then passes connections to loopback, and no interface has its addresses.
  inUserspace = interface == "userspace-networking";
in
{
  inherit onLoopback port;

  # opened : networking.firewall.interfaces
  opened = lib.optionalAttrs (cfg.openFirewall && port != null && !onLoopback && !inUserspace) {
    ${interface}.allowedTCPPorts = [ port ];
  };

  # complaints : [ string ]
  complaints =
    lib.optional (
      said != null && cfg.mode != "resident"
    ) "settings.web needs the resident mode: set `mode = \"resident\"`, or remove it"
    ++ lib.optional (
      said != null && !cfg.network
    ) "settings.web needs the network: set `network` to true, or remove it"
    ++
      lib.optional
        (port != null && port < config.boot.kernel.sysctl."net.ipv4.ip_unprivileged_port_start" or 1024)
        "settings.web.listen is ${said.listen}, but the unit cannot listen on a port below 1024: set another port, and let a proxy listen on ${toString port}"
    ++
      lib.optional (port != null && !onLoopback && inUserspace)
        "settings.web.listen is ${said.listen}, but in userspace networking tailscaled has no interface to listen on: set services.tailscale.interfaceName, or listen on loopback and read docs/http.md#who-may-read"
    ++ lib.optional (
      cfg.openFirewall && said == null
    ) "openFirewall is set, but settings.web is not: set settings.web, or remove it"
    ++
      lib.optional (cfg.openFirewall && onLoopback)
        "openFirewall is set, but settings.web.listen is ${said.listen}, which no other machine can reach: set an address of the tailnet, or remove openFirewall"
    ++
      lib.optional (cfg.openFirewall && !(config.services.tailscale.enable or false))
        "openFirewall opens a port on the interface of Tailscale, but services.tailscale.enable is false: enable it, or remove openFirewall"
    ++ lib.optional (
      cfg.verifyInterval != null && cfg.mode != "resident"
    ) "verifyInterval needs the resident mode: set `mode = \"resident\"`, or remove it"
    ++ lib.optional (
      cfg.verifyInterval != null && !cfg.network
    ) "verifyInterval needs the network: set `network` to true, or remove it";
}
