# `services.clan-discovery.front`: a reverse proxy of NixOS that serves the fronts which clan-discovery writes, follows
# them without a restart, and is a target itself.
{
  config,
  lib,
  options,
  pkgs,
  ...
}@module:
let
  cd = import ../../lib;
  cfg = config.services.clan-discovery;
  inherit (cfg) front;
  inherit (front) kind metrics;
  unit = import ./unit.nix;
  static = cfg.mode == "static";
  inherit (cfg) machine;

  kill = "${pkgs.coreutils}/bin/kill";
  systemctl = "/run/current-system/systemd/bin/systemctl";
  proxies = {
    caddy = ./caddy.nix;
    nginx = ./nginx.nix;
    traefik = ./traefik.nix;
  };
  # Where the proxy reads the file of fronts.
  directory =
    if static then
      "${(import ../render.nix { inherit lib pkgs cfg; }).fronts {
        inherit kind;
        name = unit.name kind;
      }}"
    else
      unit.home;
  # proxyOf : string -> { ports, listen, domains, takesAll, config, complaints }
  proxyOf =
    name:
    import proxies.${name} (
      module
      // {
        inherit
          front
          metrics
          kill
          directory
          static
          ;
        included = unit.included directory name;
      }
    );
  proxy = proxyOf kind;

  # The certificate, as files.
  acmeHost = if lib.isAttrs front.tls then front.tls.useACMEHost else null;
  acme = config.security.acme.certs.${acmeHost};
  tls =
    if lib.isString front.tls then
      front.tls
    else if acmeHost != null then
      {
        certificate = "${acme.directory}/fullchain.pem";
        key = "${acme.directory}/key.pem";
      }
    else
      { inherit (front.tls) certificate key; };

  # Other names (`_`, a regular expression) are no domain of a front.
  ownDomains = lib.unique (
    lib.filter (
      domain: builtins.match "(\\*\\.)?[a-z0-9-]+(\\.[a-z0-9-]+)+" domain != null
    ) proxy.domains
  );

  users = "clan-discovery-users";
  said = lib.filterAttrs (_: value: value != null && value != [ ] && value != { });
  auth = said {
    basic = lib.optionalAttrs (front.auth.basic.file != null) {
      file = "/run/credentials/${kind}.service/${users}";
    };
    forward = lib.optionalAttrs (front.auth.forward.url != null) (said front.auth.forward);
    oidc = lib.optionalAttrs (front.auth.oidc.url != null) { inherit (front.auth.oidc) url; };
  };

  # What this machine exposes; other fronts are known only to clan-discovery.
  exposed = lib.filterAttrs (_: one: one.front or null != null) cfg.expose;
  whole =
    domain:
    lib.toLower (
      if lib.hasInfix "." domain || front.domain == null then domain else "${domain}.${front.domain}"
    );
  taken = lib.filterAttrs (_: one: lib.elem (whole one.front.domain) proxy.domains) exposed;

  uis = import ./uis.nix { inherit lib config cd; };

  require = assertion: message: {
    inherit assertion;
    message = "clan-discovery: ${message}";
  };
  complaints =
    proxy.complaints
    ++
      lib.optional (front.tls == "internal" && kind != "caddy")
        "front.tls is \"internal\", which only Caddy has: set front.kind = \"caddy\", or front.tls.useACMEHost"
    ++ lib.optional (
      lib.isAttrs front.tls
      && (
        if acmeHost != null then
          front.tls.certificate != null || front.tls.key != null
        else
          front.tls.certificate == null || front.tls.key == null
      )
    ) "front.tls needs either `useACMEHost`, or `certificate` and `key`"
    ++ lib.mapAttrsToList (
      name: one:
      "the front ${whole one.front.domain} of expose.${name} is also a virtual host of services.${kind}: remove one of them, or set another expose.${name}.front.domain"
    ) taken
    ++
      lib.optional
        (kind == "nginx" && front.receive.enable && lib.elem (whole front.receive.domain) proxy.domains)
        "front.receive.domain is ${whole front.receive.domain}, which is also a virtual host of services.nginx: set another one"
    ++
      lib.optional (front.auth.oidc.enable && !(config.services.oauth2-proxy.enable or false))
        "front.auth.oidc.enable needs services.oauth2-proxy, which is disabled: remove services.oauth2-proxy.enable = false"
    ++
      lib.optional
        (
          front.auth.oidc.enable
          && front.tls == "off"
          && (config.services.oauth2-proxy.enable or false)
          && (config.services.oauth2-proxy.cookie.secure or false)
        )
        "front.tls is \"off\", and browsers keep the cookie of oauth2-proxy with https alone: set front.tls, or services.oauth2-proxy.cookie.secure = false"
    ++ lib.optional (
      metrics.enable && metrics.port == 2019
    ) "front.metrics.port is 2019, the port of Caddy's admin API: set another port";
in
{
  options.services.clan-discovery.front = import ./options.nix { inherit lib config; };

  config = lib.mkMerge [
    {
      services = uis.services;
      assertions = map (require false) uis.complaints;
    }
    {
      services.clan-discovery.expose = lib.mkMerge [
        uis.expose
        (lib.mkIf (front.enable && metrics.enable && !metrics.isDeclared) {
          ${kind} = {
            inherit (metrics) port;
            loopback = cd.service.isLoopback metrics.listenAddress;
          };
        })
      ];
    }
    (lib.mkIf front.enable {
      assertions = map (require false) complaints;

      services.clan-discovery = {
        enable = lib.mkDefault true;
        settings.front = {
          inherit kind tls;
          machine = lib.mkDefault machine;
          domain = lib.mkIf (front.domain != null) front.domain;
          auth = lib.mkIf (auth != { }) auth;
          file = lib.mkIf (!static) (unit.source kind);
          own_domains = lib.mkIf (ownDomains != [ ]) ownDomains;
        }
        // (
          if kind == "traefik" then
            { entry_point = proxy.entryPoint; }
          else
            {
              inherit (proxy) ports;
              listen = lib.mkIf (proxy.listen != [ ]) proxy.listen;
              refuse_unknown_hosts = lib.mkDefault (!proxy.takesAll);
            }
            // lib.optionalAttrs (kind == "nginx") {
              resolver = lib.mkIf (proxy.resolver != [ ]) (lib.mkDefault proxy.resolver);
            }
        );
      };

      networking.firewall = lib.mkIf front.openFirewall {
        allowedTCPPorts = [ proxy.ports.http ] ++ lib.optional (front.tls != "off") proxy.ports.https;
        allowedUDPPorts = lib.optional (front.tls != "off" && kind == "caddy") proxy.ports.https;
      };
    })
    # Each proxy has options of its own, which must be known before `kind` is.
    (lib.mkIf (front.enable && kind == "caddy") (proxyOf "caddy").config)
    (lib.mkIf (front.enable && kind == "nginx") (proxyOf "nginx").config)
    (lib.mkIf (front.enable && kind == "traefik") (proxyOf "traefik").config)
    (lib.mkIf front.enable {
      systemd.services.${kind} = {
        serviceConfig = {
          # Its copy of the file is elsewhere.
          InaccessiblePaths = lib.mkIf (!static) [ "-/var/lib/clan-discovery" ];
          LoadCredential = lib.mkIf (front.auth.basic.file != null) [ "${users}:${front.auth.basic.file}" ];
          SupplementaryGroups = lib.mkIf (acmeHost != null) [ acme.group ];
        };
        wants = lib.mkIf (acmeHost != null) [ "acme-${acmeHost}.service" ];
        after = lib.mkIf (acmeHost != null) [ "acme-${acmeHost}.service" ];
      };
    })
    (lib.mkIf (front.enable && acmeHost != null) {
      security.acme.certs.${acmeHost}.reloadServices = [ "${kind}.service" ];
    })
    (lib.mkIf (front.enable && !static) {
      # Traefik does not start without it.
      systemd.tmpfiles.rules = [ "d ${unit.home} 0755 clan-discovery clan-discovery -" ];
      systemd.services.clan-discovery-front-changed = unit.changed systemctl;
      systemd.services.clan-discovery-front = unit.service {
        inherit kind;
        script = pkgs.writeShellScript "clan-discovery-front" (
          unit.script {
            inherit kind systemctl;
            coreutils = "${pkgs.coreutils}/bin";
            cmp = "${pkgs.diffutils}/bin/cmp";
          }
        );
      };
      systemd.paths.clan-discovery-front = unit.path kind;
    })
    (lib.mkIf (front.enable && front.auth.oidc.enable) {
      services.oauth2-proxy = {
        enable = lib.mkDefault true;
        httpAddress = lib.mkDefault "http://127.0.0.1:4180";
        reverseProxy = lib.mkDefault true;
        setXauthrequest = lib.mkDefault true;
        upstream = lib.mkDefault [ "static://202" ];
        cookie.domain = lib.mkIf (front.domain != null) (lib.mkDefault ".${front.domain}");
        extraConfig.whitelist-domain = lib.mkIf (front.domain != null) (lib.mkDefault ".${front.domain}");
      }
      // lib.optionalAttrs (options.services.oauth2-proxy ? trustedProxyIP) {
        # Only a proxy of this machine reaches it.
        trustedProxyIP = lib.mkDefault [
          "127.0.0.1"
          "::1"
        ];
      };
    })
  ];
}
