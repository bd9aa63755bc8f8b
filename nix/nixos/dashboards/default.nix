# `services.clan-discovery.stack.dashboards`: Grafana on this machine, with the boards and a datasource for each server
# and store of logs.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf;
  cfg = config.services.clan-discovery;
  own = cfg.stack.dashboards;
  inherit (cfg) front;
  inStore = import ../in-store.nix { inherit lib; };
  boards = import ./boards.nix { inherit lib pkgs; };
  grafana = config.services.grafana;

  # Words of settings that would be secrets in the store.
  isFile = value: lib.hasPrefix "$__" (toString value);
  open =
    lib.optional (
      own.oidc.settings ? client_secret && !isFile own.oidc.settings.client_secret
    ) "oidc.settings.client_secret"
    ++ lib.concatMap (
      one:
      map (name: "datasources (${one.name or "without a name"}): secureJsonData.${name}") (
        lib.attrNames (lib.filterAttrs (_: value: !isFile value) (one.secureJsonData or { }))
      )
    ) own.datasources;

  # The front of a UI of this machine: null or { domain; url; }
  frontOf =
    name:
    let
      ui = front.uis.${name};
      below = lib.optionalString (!lib.hasInfix "." ui.domain && front.domain != null) ".${front.domain}";
      domain = lib.toLower "${ui.domain}${below}";
      scheme = if front.tls == "off" then "http" else "https";
    in
    if front.enable && ui.enable then
      {
        inherit domain;
        url = "${scheme}://${domain}/";
      }
    else
      null;
  served = frontOf "grafana";
  status = frontOf "status";

  domain =
    if own.domain != null then
      own.domain
    else if served != null then
      served.domain
    else
      "localhost";
  rootUrl =
    if own.rootUrl != null then
      own.rootUrl
    else if served != null && own.domain == null then
      served.url
    else if served != null then
      "${lib.head (lib.splitString ":" served.url)}://${domain}/"
    else
      "http://${domain}:${toString own.port}/";
  page =
    if own.statusPage != null then
      lib.removeSuffix "/" own.statusPage
    else if status != null then
      lib.removeSuffix "/" status.url
    else
      "";

  # Secrets of the unit: { <credential> = file; }
  secrets = lib.filterAttrs (_: file: file != null) {
    admin-password = own.adminPasswordFile;
    secret-key = own.secretKeyFile;
    oidc-secret = if own.oidc.enable then own.oidc.clientSecretFile else null;
  };
  read = name: "$__file{/run/credentials/grafana.service/${name}}";
  options = {
    admin-password = "adminPasswordFile";
    secret-key = "secretKeyFile";
    oidc-secret = "oidc.clientSecretFile";
  };
  stored = lib.filterAttrs (_: inStore) secrets;

  datasources = own.found ++ own.datasources;
  names = map (one: one.name or "") datasources;
  twice = lib.unique (lib.filter (name: lib.count (other: other == name) names > 1) names);
  isMetrics = one: (one.type or "") == "prometheus";
  firstServer = lib.findFirst isMetrics null datasources;
  hasPlugin = lib.any (one: (one.type or "") == plugin) datasources;
  plugin = "victoriametrics-logs-datasource";
  plugins = pkgs.grafanaPlugins or { };

  isPostgres = own.database.type == "postgres";
  isLocalPostgres = isPostgres && own.database.socket == "/run/postgresql";

  require = assertion: message: {
    inherit assertion;
    message = "services.clan-discovery.stack.dashboards${message}";
  };
  oidcWords = {
    clientId = own.oidc.clientId;
    clientSecretFile = own.oidc.clientSecretFile;
    authUrl = own.oidc.authUrl;
    tokenUrl = own.oidc.tokenUrl;
  };
  missing = lib.attrNames (lib.filterAttrs (_: value: value == null) oidcWords);
in
{
  config = mkIf own.enable {
    services.grafana = {
      enable = mkDefault true;
      provision = {
        enable = mkDefault true;
        datasources.settings = {
          # A datasource that is no longer here is removed from the database, too.
          prune = mkDefault true;
          datasources = map (
            one: one // lib.optionalAttrs (one == firstServer && !(one ? isDefault)) { isDefault = true; }
          ) datasources;
        };
        dashboards.settings.providers = [
          {
            name = "clan-discovery";
            folder = "Clan";
            disableDeletion = false;
            options.path = boards.directory page;
          }
        ];
      };
      declarativePlugins = mkIf (hasPlugin && plugins ? ${plugin}) [ plugins.${plugin} ];
      settings = {
        server = {
          http_addr = mkDefault "127.0.0.1";
          http_port = mkDefault own.port;
          domain = mkDefault domain;
          root_url = mkDefault rootUrl;
        };
        security = {
          secret_key = mkIf (secrets ? secret-key) (mkDefault (read "secret-key"));
          admin_password = mkIf (secrets ? admin-password) (mkDefault (read "admin-password"));
          cookie_secure = mkDefault (lib.hasPrefix "https://" rootUrl);
          disable_gravatar = mkDefault true;
        };
        users.allow_sign_up = mkDefault false;
        metrics.enabled = mkDefault true;
        analytics = {
          reporting_enabled = mkDefault false;
          check_for_updates = mkDefault false;
          check_for_plugin_updates = mkDefault false;
        };
        dashboards.default_home_dashboard_path = mkDefault "${boards.directory page}/fleet.json";
        database = mkIf isPostgres {
          type = mkDefault "postgres";
          host = mkDefault own.database.socket;
          name = mkDefault "grafana";
          user = mkDefault "grafana";
        };
        "auth.generic_oauth" = mkIf own.oidc.enable (
          lib.mapAttrs (_: mkDefault) (
            {
              enabled = true;
              inherit (own.oidc) name;
              client_id = own.oidc.clientId;
              client_secret = read "oidc-secret";
              auth_url = own.oidc.authUrl;
              token_url = own.oidc.tokenUrl;
              scopes = lib.concatStringsSep " " own.oidc.scopes;
              use_pkce = true;
              # The provider says who may log in.
              allow_sign_up = true;
            }
            // lib.optionalAttrs (own.oidc.apiUrl != null) { api_url = own.oidc.apiUrl; }
          )
          // own.oidc.settings
        );
      };
    };

    services.postgresql = mkIf isLocalPostgres {
      enable = mkDefault true;
      ensureDatabases = [ "grafana" ];
      ensureUsers = [
        {
          name = "grafana";
          ensureDBOwnership = true;
        }
      ];
    };

    systemd.services.grafana = {
      requires = mkIf isLocalPostgres [ "postgresql.target" ];
      serviceConfig.LoadCredential = lib.mapAttrsToList (name: file: "${name}:${file}") secrets;
    };

    services.clan-discovery.expose = mkIf (!own.isDeclared) {
      grafana = {
        inherit (own) port;
        metrics = true;
        loopback = true;
      };
    };

    assertions = [
      (require (firstServer != null)
        ": there is no server to show: enable stack.server on this machine, or name one of another machine in `datasources`, with type = \"prometheus\" and its url (in a clan: give the role server to a machine)"
      )
      (require (twice == [ ])
        ".datasources: ${lib.concatStringsSep ", " twice} is the name of two datasources: rename one of them"
      )
      (require (own.secretKeyFile != null || grafana.settings.security.secret_key != null)
        ".secretKeyFile is not set: write `openssl rand -hex 32` to a file on the machine, and set its path"
      )
      (require (own.adminPasswordFile != null || grafana.settings.security.admin_password != "admin")
        ".adminPasswordFile is not set, and the password would be `admin`: write one to a file on the machine, and set its path"
      )
      (require (
        !own.oidc.enable || missing == [ ]
      ) ".oidc: ${lib.concatStringsSep ", " missing} must be set")
      (require (!hasPlugin || plugins ? ${plugin})
        ": this nixpkgs has no grafanaPlugins.${plugin}, which reads VictoriaLogs: update nixpkgs, or set `backend = \"loki\"` for the logs"
      )
    ]
    ++ map (
      place:
      require false ".${place}: every user could read it in the Nix store: write it to a file on the machine, and set \"$__file{/run/secrets/grafana}\""
    ) open
    ++ lib.mapAttrsToList (
      name: file:
      require false ".${options.${name}} is ${toString file}, in the Nix store, which every user can read: write the path of a file on the machine as a string, for example \"/run/secrets/grafana\""
    ) stored;
  };
}
