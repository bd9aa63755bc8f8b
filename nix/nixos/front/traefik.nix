# services.traefik for fronts: the directory of its file provider, its entry points, its metrics, and what would hide the
# fronts or expose its API.
{
  config,
  lib,
  options,
  pkgs,
  front,
  metrics,
  directory,
  static,
  kill,
  ...
}:
let
  traefik = config.services.traefik;
  isOn = front.tls != "off";
  toml = pkgs.formats.toml { };
  # Its own dynamic configuration, which the file provider does not read beside a directory.
  dynamic =
    if traefik.dynamicConfigFile != null then
      traefik.dynamicConfigFile
    else if traefik.dynamicConfigOptions != { } then
      toml.generate "traefik-dynamic.toml" traefik.dynamicConfigOptions
    else
      null;
  given = traefik.staticConfigOptions;
  portOf = entry: builtins.match ".*:([0-9]+)(/tcp)?" (entry.address or "");
  ofPort = lib.groupBy (name: lib.head (portOf given.entryPoints.${name})) (
    lib.filter (name: portOf given.entryPoints.${name} != null) (
      lib.attrNames (given.entryPoints or { })
    )
  );
  certificates = config.security.acme.defaults.email;
in
{
  ports = {
    http = 80;
    https = 443;
  };
  listen = [ ];
  # Routers of both are served; a rule has a priority.
  domains = [ ];
  takesAll = false;
  entryPoint = if isOn then front.entryPoints.https else front.entryPoints.http;

  config.services.traefik = {
    enable = lib.mkDefault true;
    staticConfigOptions = lib.mkMerge [
      {
        global = {
          checkNewVersion = lib.mkDefault false;
          sendAnonymousUsage = lib.mkDefault false;
        };
        providers.file = {
          directory = lib.mkDefault directory;
          watch = lib.mkDefault true;
        };
        entryPoints.${front.entryPoints.http} = {
          address = lib.mkDefault ":80";
        }
        // lib.optionalAttrs isOn {
          http.redirections.entryPoint = {
            to = lib.mkDefault front.entryPoints.https;
            scheme = lib.mkDefault "https";
          };
        };
      }
      (lib.mkIf isOn {
        entryPoints.${front.entryPoints.https} = {
          address = lib.mkDefault ":443";
          # A large upload takes longer than a minute.
          transport.respondingTimeouts.readTimeout = lib.mkDefault "0s";
        };
      })
      (lib.mkIf metrics.enable {
        entryPoints.clan-discovery-metrics.address = "${metrics.listenAddress}:${toString metrics.port}";
        metrics.prometheus.entryPoint = lib.mkDefault "clan-discovery-metrics";
      })
      (lib.mkIf (front.tls == "acme") {
        certificatesResolvers.acme.acme = {
          storage = lib.mkDefault "${traefik.dataDir}/acme.json";
          httpChallenge.entryPoint = lib.mkDefault front.entryPoints.http;
        }
        // lib.optionalAttrs (certificates != null) { email = lib.mkDefault certificates; };
      })
    ];
  };
  config.systemd.services.traefik.serviceConfig.ExecReload = "${kill} -HUP $MAINPID";
  config.systemd.tmpfiles.rules = lib.optional (
    dynamic != null && !static
  ) "L+ ${directory}/nixos.toml - - - - ${dynamic}";

  complaints =
    lib.optional (static && dynamic != null)
      "mode is \"static\", and Traefik reads its fronts from the store, without services.traefik.dynamicConfigOptions: set `mode` to \"resident\""
    ++
      lib.optional (traefik.staticConfigFile != null)
        "services.traefik.staticConfigFile replaces the entry points and the directory of the fronts: write it as staticConfigOptions"
    ++
      lib.optional (given.api.insecure or false)
        "services.traefik: api.insecure serves the API and the dashboard to every client that can connect to port 8080: remove it, and give the dashboard a router with authentication (service api@internal). The metrics are on port ${toString metrics.port}"
    ++
      lib.optional (given.providers.file.directory or directory != directory)
        "services.traefik: providers.file.directory is ${given.providers.file.directory}, but the fronts are in ${directory}: remove it, and write its files as dynamicConfigOptions"
    ++ lib.mapAttrsToList (
      port: names:
      "services.traefik: the entry points ${lib.concatStringsSep " and " names} have port ${port}: ${
        if lib.elem "clan-discovery-metrics" names then
          "set front.metrics.port"
        else
          "set front.entryPoints.http and front.entryPoints.https to the names of yours"
      }"
    ) (lib.filterAttrs (_: names: lib.length names > 1) ofPort);
}
