# services.nginx for fronts: what it includes, its exporter, and what would hide the fronts.
{
  config,
  lib,
  options,
  front,
  metrics,
  included,
  ...
}:
let
  nginx = config.services.nginx;
  isSet = option: options.services.nginx.${option}.highestPrio < (lib.mkOptionDefault null).priority;
  sites = lib.attrValues nginx.virtualHosts;
  domains = map lib.toLower (
    lib.concatLists (
      lib.mapAttrsToList (
        name: site: [ (if site.serverName == null then name else site.serverName) ] ++ site.serverAliases
      ) nginx.virtualHosts
    )
  );
  status = "127.0.0.1:${toString metrics.statusPort}";
in
{
  ports = {
    http = nginx.defaultHTTPListenPort;
    https = nginx.defaultSSLListenPort;
  };
  listen =
    if isSet "defaultListenAddresses" then
      nginx.defaultListenAddresses
    else
      lib.optional (!config.networking.enableIPv6) "0.0.0.0";

  # For services at a name: nginx has no resolver of its own.
  resolver =
    if nginx.resolver.addresses or [ ] != [ ] then
      nginx.resolver.addresses
    else if config.services.resolved.enable or false then
      [ "127.0.0.53" ]
    else
      lib.filter (address: builtins.match "[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:]*" address != null) (
        config.networking.nameservers or [ ]
      );

  inherit domains;
  # `_` is no host: nginx takes such a server because it is the first one, if no other is the default.
  takesAll =
    lib.elem "_" domains
    || lib.any (
      site:
      site.default
      || lib.any (listen: lib.elem "default_server" listen.extraParameters or [ ]) site.listen
    ) sites;

  config.services.nginx = {
    enable = lib.mkDefault true;
    appendHttpConfig = ''
      include ${included};
      ${lib.optionalString metrics.enable ''
        server {
          listen ${status};
          access_log off;
          location = /stub_status {
            stub_status;
          }
          location / {
            return 404;
          }
        }
      ''}
    '';
  };
  config.services.prometheus.exporters.nginx = lib.mkIf metrics.enable {
    enable = lib.mkDefault true;
    port = lib.mkDefault metrics.port;
    listenAddress = lib.mkDefault metrics.listenAddress;
    scrapeUri = lib.mkDefault "http://${status}/stub_status";
  };

  complaints =
    map
      (
        option:
        "services.nginx.${option} replaces the whole http block, with the fronts: move it to virtualHosts and appendHttpConfig"
      )
      (
        lib.filter (option: nginx.${option} != "") [
          "config"
          "httpConfig"
        ]
      )
    ++
      lib.optional (front.tls == "acme")
        "front.tls is \"acme\", but nginx gets no certificates itself: set front.tls.useACMEHost to a certificate of security.acme.certs, such as one for *.${
          if front.domain == null then "home.example.org" else front.domain
        }";
}
