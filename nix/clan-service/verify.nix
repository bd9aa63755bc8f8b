# How `verify` asks the scraper of this machine.
{ lib, cd }:
let
  # flagIn : [ flag ] -> string -> string or null: the value of the last `-name=value` or `--name=value`.
  flagIn =
    flags: name:
    let
      found = lib.concatMap (
        flag:
        let
          said = builtins.match "--?${lib.escapeRegex name}=(.*)" flag;
        in
        if said == null then [ ] else said
      ) (lib.filter lib.isString flags);
    in
    if found == [ ] then null else lib.last found;
  hasFlag = flags: names: lib.any (name: lib.any (isFlag name) flags) names;
  isFlag =
    name: flag: lib.isString flag && builtins.match "--?${lib.escapeRegex name}.*" flag != null;

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
    prefix = prefixOf (flagIn flags "http.pathPrefix");
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
              orElse (prometheus.webExternalUrl or null) (flagIn prometheus.extraFlags "web.route-prefix")
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
            orElse ":${toString cd.service.ownPorts.vmagent}" (flagIn vmagent.extraArgs "httpListenAddr")
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
