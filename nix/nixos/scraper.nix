# Where `verify` and Grafana ask a scraper.
{ lib, cd }:
let
  inherit (import ./flags.nix { inherit lib; }) hasFlag valueOf;

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
  inherit prefixOf;

  # urlOf : string -> port -> string: of a program that listens there, on its own machine.
  urlOf = host: port: "http://${reached host}:${toString port}";

  # remote : settings of the role server -> string -> { url; closed; }: of a server on another machine, at this host.
  remote = settings: host: {
    url = "http://${host}:${toString (cd.service.serverPort settings)}${
      prefixOf (
        if settings.backend == "prometheus" then
          orElse (orElse (settings.webExternalUrl or null) (valueOf settings.extraFlags "web.external-url")) (
            valueOf settings.extraFlags "web.route-prefix"
          )
        else
          valueOf settings.extraFlags "http.pathPrefix"
      )
    }";
    closed =
      settings.webConfigFile or null != null
      || settings.basicAuthUsername or null != null
      || hasFlag settings.extraFlags [
        "httpAuth."
        "tls"
        "web.config.file"
      ];
  };

  # vmalert : settings of an instance of vmalert -> { url; closed; }
  vmalert =
    settings:
    let
      # The rules depend on `settings.verify`, which depends on this.
      flags = lib.mapAttrsToList (name: value: "-${name}=${toString value}") (
        removeAttrs settings [ "rule" ]
      );
      found = victoria flags (lib.head (lib.toList (settings.httpListenAddr or ":8880")));
    in
    {
      inherit (found) closed;
      url = "http://${found.host}:${found.port}${found.prefix}";
    };

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
