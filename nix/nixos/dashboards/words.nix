# The options of Grafana that the NixOS module and the role `dashboards` of the clan service share.
lib:
let
  inherit (lib) mkOption types;
  optional =
    type: example: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };
  # Not a path of Nix, which would copy a secret to the store.
  file = types.str;
in
{
  domain = optional types.str "grafana.example.org" ''
    The domain of Grafana in a browser. Default: that of its front, else `localhost`.
  '';
  rootUrl = optional types.str "https://grafana.example.org/" ''
    The URL of Grafana in a browser. Default: `domain` with https behind a front that has TLS, else with http.
  '';
  port = mkOption {
    type = types.port;
    default = 3000;
    description = "The port of Grafana, on loopback.";
  };
  adminPasswordFile = optional file "/run/secrets/grafana-admin" ''
    The file of the password of the user `admin`, on the machine. Grafana reads it at its first start.
  '';
  secretKeyFile = optional file "/run/secrets/grafana-key" ''
    The file of the key that encrypts secrets in Grafana's database, on the machine.
  '';

  database = {
    type = mkOption {
      type = types.enum [
        "sqlite"
        "postgres"
      ];
      default = "sqlite";
      description = "Where Grafana keeps users and its own boards: a file, or the PostgreSQL of this machine, as the user `grafana`.";
    };
    socket = mkOption {
      type = types.str;
      default = "/run/postgresql";
      description = "The directory of PostgreSQL's socket.";
    };
  };

  oidc = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether users log in with OpenID Connect.";
    };
    name = mkOption {
      type = types.str;
      default = "OpenID Connect";
      description = "The name on the button of the login page.";
    };
    clientId = optional types.str "grafana" "The client.";
    clientSecretFile =
      optional file "/run/secrets/grafana-oidc"
        "The file of the client's secret, on the machine.";
    authUrl =
      optional types.str "https://id.example.org/authorize"
        "The provider's authorization endpoint.";
    tokenUrl = optional types.str "https://id.example.org/token" "The provider's token endpoint.";
    apiUrl = optional types.str "https://id.example.org/userinfo" "The provider's userinfo endpoint.";
    scopes = mkOption {
      type = types.listOf types.str;
      default = [
        "openid"
        "profile"
        "email"
      ];
      description = "The scopes to ask for.";
    };
    settings = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example.role_attribute_path = "contains(groups, 'admin') && 'Admin' || 'Viewer'";
      description = "More of Grafana's section `auth.generic_oauth`.";
    };
  };

  statusPage = optional types.str "https://status.example.org" ''
    The URL of the status page, to which the boards link. Default: that of its front, else no link.
  '';
}
