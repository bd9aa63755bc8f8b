# services.caddy for fronts: what it includes, its metrics, and what would expose it or hide the fronts.
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
  caddy = config.services.caddy;
  isSet = option: options.services.caddy.${option}.highestPrio < (lib.mkOptionDefault null).priority;

  # The addresses of the admin API: of the Caddyfile's global options, and of JSON.
  said = lib.concatMap (
    line:
    let
      words = builtins.match "[[:space:]]*admin[[:space:]]+\"?([^[:space:]\"{]+).*" line;
    in
    lib.optionals (words != null) words
  ) (lib.splitString "\n" caddy.globalConfig);
  admins = said ++ lib.optional (caddy.settings ? admin.listen) caddy.settings.admin.listen;
  # A placeholder is not known here.
  isClosed =
    address:
    lib.hasPrefix "unix/" address
    || lib.hasInfix "{" address
    || address == "off"
    || builtins.match "(tcp/)?(localhost|127\\.[0-9.]+|\\[::1])(:[0-9]+)?" address != null;

  names =
    host:
    let
      found = builtins.match "(https?://)?([^/:]*)(:[0-9]+)?(/.*)?" (lib.toLower host);
    in
    if found == null then "" else lib.elemAt found 1;
  # A name may be a list of names: "a.example.org, b.example.org".
  hosts =
    lib.concatMap
      (host: lib.filter (name: lib.isString name && name != "") (builtins.split "[ ,]+" host))
      (lib.concatMap (site: [ site.hostName ] ++ site.serverAliases) (lib.attrValues caddy.virtualHosts));
in
{
  ports = {
    http = if caddy.httpPort == null then 80 else caddy.httpPort;
    https = if caddy.httpsPort == null then 443 else caddy.httpsPort;
  };
  listen = [ ];

  # The domains of the machine's own virtual hosts, and whether one of them takes every host.
  domains = lib.filter (name: name != "") (map names hosts);
  takesAll = lib.any (host: names host == "") hosts;

  config.services.caddy = {
    enable = lib.mkDefault true;
    globalConfig = lib.mkIf (
      metrics.enable && lib.versionAtLeast (caddy.package.version or "2") "2.9"
    ) (lib.mkBefore "metrics");
    extraConfig = ''
      import ${included}
      ${lib.optionalString metrics.enable ''
        http://:${toString metrics.port} {
          bind ${metrics.listenAddress}
          metrics /metrics
        }
      ''}
    '';
  };

  complaints =
    map (
      address:
      "services.caddy: the admin API listens on ${address}, and every client that can connect can replace the whole configuration: write `admin localhost:2019` or `admin unix//run/caddy/admin.sock`. The metrics are on port ${toString metrics.port}"
    ) (lib.filter (address: !isClosed address) admins)
    ++ lib.optional (lib.elem "off" admins) "services.caddy.globalConfig has `admin off`, without which Caddy cannot reload the fronts: write `admin unix//run/caddy/admin.sock`, and give the unit `RuntimeDirectory = \"caddy\"`"
    ++
      lib.optional (caddy.settings != { })
        "services.caddy.settings replaces the whole Caddyfile, with the fronts: write it as globalConfig, extraConfig and virtualHosts"
    ++ lib.optional (isSet "configFile") "services.caddy.configFile replaces the whole Caddyfile, with the fronts: move its sites to services.caddy.extraConfig, and its global options to globalConfig"
    ++
      lib.optional (!caddy.enableReload)
        "services.caddy.enableReload is false, and each change of a front would break connections: set it to true"
    ++ lib.optional caddy.resume "services.caddy.resume is true, so that Caddy starts with an old configuration, without new fronts: set it to false";
}
