# The options of a front that the NixOS module and the role `front` of the clan service share.
lib:
let
  inherit (lib) mkOption types;

  optional =
    type: description: example:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };
  # Not a path of Nix, which would copy a secret to the store.
  file = types.str;

  certificate = types.submodule {
    options = {
      useACMEHost = optional types.str ''
        A certificate of `security.acme.certs` for every domain of the fronts, such as one for `*.home.example.org`.
      '' "home.example.org";
      certificate =
        optional file "The file of a certificate chain, which the proxy can read."
          "/var/lib/certs/home.pem";
      key = optional file "The file of its key, which the proxy can read." "/var/lib/certs/home.key";
    };
  };
in
{
  kind = mkOption {
    type = types.enum [
      "caddy"
      "nginx"
      "traefik"
    ];
    default = "caddy";
    example = "nginx";
    description = "The proxy: services.caddy, services.nginx or services.traefik, which is enabled.";
  };

  domain = optional types.str "The domain of fronts whose own domain has no dot." "home.example.org";

  tls = mkOption {
    type = types.either (types.enum [
      "off"
      "internal"
      "acme"
    ]) certificate;
    default = "off";
    example.useACMEHost = "home.example.org";
    description = ''
      `off`: http alone. `internal`: Caddy's own CA. `acme`: Caddy or Traefik gets a certificate for each domain. Or a
      certificate: `useACMEHost`, or `certificate` and `key`.
    '';
  };

  auth = {
    basic.file = optional file ''
      For `auth = "basic"`: the file of users (docs/fronts.md#users). systemd reads it as root when the proxy starts.
    '' "/run/secrets/front-users";
    forward = {
      url =
        optional types.str "For `auth = \"forward\"`: the URL that is asked about each request."
          "http://127.0.0.1:9091/api/authz/forward-auth";
      headers = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "Remote-User" ];
        description = "Headers of its answer that the service gets.";
      };
      login =
        optional types.str "nginx: where a browser without a login is sent."
          "https://auth.example.org/";
    };
    oidc.url =
      optional types.str "For `auth = \"oidc\"`: the URL of oauth2-proxy."
        "http://10.0.0.5:4180";
  };

  entryPoints = {
    http = mkOption {
      type = types.str;
      default = "web";
      description = "Traefik: the name of the entry point on port 80. One of your own configuration keeps its address. With TLS, it redirects to https.";
    };
    https = mkOption {
      type = types.str;
      default = "websecure";
      description = "Traefik: the name of the entry point on port 443.";
    };
  };

  openFirewall = mkOption {
    type = types.bool;
    default = false;
    description = "Whether to open the ports of http and https in the firewall.";
  };
}
