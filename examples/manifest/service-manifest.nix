# A service manifest: one attrset that says which services run where. Deployment reads it, and so does clan-discovery,
# as JSON:
#
#   nix eval --json -f service-manifest.nix > service-manifest.json
let
  active =
    units: builtins.concatStringsSep " && " (map (unit: "systemctl is-active --quiet ${unit}") units);
  health = startup: liveness: {
    inherit startup liveness;
    interval = 30;
    timeout = 10;
    retries = 3;
  };
  running = units: health (active units) (active units);
  forward.type = "forward_auth";
in
{
  network = {
    domain = "lab.example.org";
    gateway = "10.20.0.1";
    network_cidr = "10.20.0.0/24";
  };

  core_services = {
    resolver = {
      enable = true;
      ip = "10.20.0.10";
      hostname = "resolver.lab.example.org";
      interface.health = running [ "unbound" ];
    };

    postgresql = {
      enable = true;
      ip = "10.20.0.11/24";
      hostname = "postgresql.lab.example.org";
      ports = [ 5432 ];
      interface = {
        proxy = {
          domain = "pgadmin.lab.example.org";
          path = "/";
          upstream = "10.20.0.11:5050";
          auth = "forward_auth";
        };
        health = running [
          "postgresql"
          "pgadmin"
        ];
      };
    };

    proxy = {
      enable = true;
      ip = "10.20.0.12";
      hostname = "proxy.lab.example.org";
      ports = [
        80
        443
      ];
      interface.health = running [ "caddy" ];
    };

    sso = {
      enable = true;
      ip = "10.20.0.13";
      hostname = "sso.lab.example.org";
      interface = {
        proxy = {
          domain = "login.lab.example.org";
          upstream = "10.20.0.13:9091";
        };
        health = running [
          "authelia"
          "redis-authelia"
        ];
      };
    };
  };

  services = {
    vaultwarden = {
      enable = true;
      ip = "10.20.0.20";
      hostname = "vaultwarden.lab.example.org";
      depends_on = [
        "postgresql"
        "proxy"
      ];
      ports = [ 8080 ];
      interface = {
        proxy = {
          domain = "vault.lab.example.org";
          upstream = "10.20.0.20:8080";
        };
        health = health (active [ "vaultwarden" ]) "curl -fsS http://localhost:8080/alive";
      };
    };

    documents = {
      enable = true;
      ip = "10.20.0.21";
      hostname = "documents.lab.example.org";
      depends_on = [
        "postgresql"
        "sso"
      ];
      interface = {
        auth = forward;
        proxy = {
          domain = "documents.lab.example.org";
          upstream = 28981;
        };
        health = running [
          "paperless-web"
          "paperless-scheduler"
          "paperless-consumer"
        ];
      };
    };

    photos = {
      enable = true;
      ip = "10.20.0.22";
      hostname = "photos.lab.example.org";
      depends_on = [ "postgresql" ];
      interface = {
        proxy = {
          domain = "photos.lab.example.org";
          upstream = "10.20.0.22:2283";
          extra_config = ''
            # Uploads and live updates
            header_up X-Forwarded-Ssl on
            flush_interval -1
          '';
        };
        health = health (active [
          "immich-server"
          "immich-machine-learning"
        ]) "curl -f -s http://localhost:2283/api/server/ping";
      };
    };

    git = {
      enable = true;
      ip = "10.20.0.23";
      hostname = "git.lab.example.org";
      depends_on = [ "postgresql" ];
      interface = {
        auth = {
          type = "oidc";
          oidc.redirect_uris = [ "https://git.lab.example.org/user/oauth2/sso/callback" ];
        };
        proxy = {
          domain = "git.lab.example.org";
          upstream = "10.20.0.23:3000";
        };
        health = health (active [ "forgejo" ]) "curl -f http://localhost:3000/api/healthz";
      };
    };

    home = {
      enable = true;
      ip = "10.20.0.24";
      hostname = "home.lab.example.org";
      depends_on = [ "postgresql" ];
      interface = {
        proxy = {
          domain = "home.lab.example.org";
          upstream = "10.20.0.24:8123";
        };
        health = health (active [ "home-assistant" ]) "curl -fsS -m 5 http://localhost:8123/manifest.json";
      };
    };

    media = {
      enable = true;
      ip = "10.20.0.25";
      hostname = "media.lab.example.org";
      depends_on = [ "proxy" ];
      interface = {
        # Several proxies: an attrset of named ones.
        proxy = {
          jellyfin = {
            domain = "jellyfin.lab.example.org";
            upstream = "http://10.20.0.25:8096";
          };
          sonarr = {
            domain = "sonarr.lab.example.org";
            upstream = "10.20.0.25:8989";
            auth = forward;
          };
          radarr = {
            domain = "radarr.lab.example.org";
            upstream = "10.20.0.25:7878";
            auth = forward;
          };
          prowlarr = {
            domain = "prowlarr.lab.example.org";
            upstream = "10.20.0.25:9696";
            auth = forward;
          };
          transmission = {
            domain = "transmission.lab.example.org";
            path = "/transmission";
            upstream = "10.20.0.25:9091";
            auth = forward;
          };
        };
        health = running [
          "jellyfin"
          "sonarr"
          "radarr"
          "transmission"
        ];
      };
    };

    monitoring = {
      enable = true;
      ip = "10.20.0.26";
      hostname = "monitoring.lab.example.org";
      depends_on = [
        "postgresql"
        "sso"
      ];
      interface = {
        auth = forward;
        proxy = {
          prometheus = {
            domain = "prometheus.lab.example.org";
            upstream = "10.20.0.26:9090";
          };
          grafana = {
            domain = "grafana.lab.example.org";
            upstream = "10.20.0.26:3000";
          };
          alertmanager = {
            domain = "alertmanager.lab.example.org";
            upstream = "10.20.0.26:9093";
          };
          logs = {
            domain = "logs.lab.example.org";
            upstream = "10.20.0.26:9428";
          };
        };
        health = running [
          "prometheus"
          "grafana"
        ];
      };
    };

    mail = {
      enable = false;
      ip = "10.20.0.27";
      hostname = "mail.lab.example.org";
      depends_on = [ "postgresql" ];
      ports = [
        25
        587
      ];
      interface.health = running [ "postfix" ];
    };
  };

  deployment_phases = {
    core = [
      "postgresql"
      "resolver"
      "proxy"
      "sso"
    ];
  };
}
