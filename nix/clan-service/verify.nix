# How `verify` asks the scraper of this machine.
{ lib, cd }:
let
  inherit (import ../nixos/flags.nix { inherit lib; }) hasFlag valueOf;

  # The path of a URL, without slashes at its end; Python reads it alike (inventory/clan/service.py).
  prefixOf =
    url:
    let
      found = builtins.match "([a-z]+://[^/]*)?(/[^?#]*[^/?#])/*" (if url == null then "" else url);
    in
    if found == null then "" else lib.last found;

  # An address at which a program that listens there can be reached from its own machine.
  reached =
    host:
    if
      lib.elem host [
        ""
        "0.0.0.0"
      ]
    then
      "127.0.0.1"
    else if
      lib.elem host [
        "::"
        "[::]"
      ]
    then
      "[::1]"
    else if cd.service.isIpv6 host then
      "[${host}]"
    else
      host;
  orElse = fallback: value: if value == null then fallback else value;

  # Of VictoriaMetrics and vmagent.
  victoria = flags: listen: {
    host = reached (lib.concatStringsSep ":" (lib.init (lib.splitString ":" listen)));
    port = lib.last (lib.splitString ":" listen);
    prefix = prefixOf (valueOf flags "http.pathPrefix");
    closed = hasFlag flags [
      "httpAuth."
      "tls"
    ];
    why = "its flags -httpAuth and -tls make it ask for a password or for TLS";
  };
in
{
  # own : settings -> config -> { url; closed; why; } or null
  # `closed`: it asks for a password or for TLS, which only its operator knows. Alloy has no such API.
  own =
    settings: config:
    let
      inherit (config.services) prometheus victoriametrics vmagent;
      found =
        {
          prometheus = {
            host = reached prometheus.listenAddress;
            port = toString prometheus.port;
            prefix = prefixOf (
              orElse (orElse (prometheus.webExternalUrl or null) (
                valueOf prometheus.extraFlags "web.external-url"
              )) (valueOf prometheus.extraFlags "web.route-prefix")
            );
            closed =
              prometheus.webConfigFile or null != null || hasFlag prometheus.extraFlags [ "web.config.file" ];
            why = "services.prometheus.webConfigFile makes it ask for a password or for TLS";
          };
          victoriametrics =
            victoria victoriametrics.extraOptions victoriametrics.listenAddress
            // lib.optionalAttrs (victoriametrics.basicAuthUsername or null != null) {
              closed = true;
              why = "services.victoriametrics.basicAuthUsername makes it ask for a password";
            };
          vmagent = victoria vmagent.extraArgs (
            orElse ":${toString cd.service.ownPorts.vmagent}" (valueOf vmagent.extraArgs "httpListenAddr")
          );
        }
        .${settings.backend} or null;
    in
    if found == null then
      null
    else
      {
        inherit (found) closed why;
        url = "http://${found.host}:${found.port}${found.prefix}";
      };
}
