# The NixOS options that our modules set, as strict as in NixOS where our mistakes would show: a scrape config allows
# only known keys, labels are strings, an exporter has only its own options. Packages are names.
{ lib, exporters }:
let
  inherit (lib) mkOption types;
  anything =
    default:
    mkOption {
      type = types.anything;
      inherit default;
    };
  list = mkOption {
    type = types.listOf types.anything;
    default = [ ];
  };
  strict = options: types.submodule { inherit options; };
  nullable =
    type:
    mkOption {
      type = types.nullOr type;
      default = null;
    };

  # nixos/modules/services/monitoring/prometheus/default.nix
  scrapeConfig = strict {
    job_name = mkOption { type = types.str; };
    scrape_interval = nullable types.str;
    metrics_path = nullable types.str;
    tls_config = nullable (strict {
      ca_file = nullable types.str;
      server_name = nullable types.str;
    });
    basic_auth = nullable (strict {
      username = mkOption { type = types.str; };
      password_file = nullable types.str;
    });
    static_configs = nullable (
      types.listOf (strict {
        targets = mkOption { type = types.listOf types.str; };
        labels = mkOption {
          type = types.attrsOf types.str;
          default = { };
        };
      })
    );
    file_sd_configs = nullable (
      types.listOf (strict {
        files = mkOption { type = types.listOf types.str; };
        refresh_interval = nullable types.str;
      })
    );
    relabel_configs = nullable (
      types.listOf (strict {
        source_labels = nullable (types.listOf types.str);
        regex = nullable types.str;
        modulus = nullable types.int;
        target_label = nullable types.str;
        action = nullable types.str;
      })
    );
  };

  exporter =
    name:
    mkOption {
      default = { };
      type = strict (
        {
          enable = mkOption {
            type = types.bool;
            default = false;
          };
          port = mkOption {
            type = types.port;
            default = exporters.${name}.port;
          };
          listenAddress = mkOption {
            type = types.str;
            default = "0.0.0.0";
          };
          extraFlags = list;
          openFirewall = mkOption {
            type = types.bool;
            default = false;
          };
        }
        // lib.optionalAttrs (name == "node") {
          enabledCollectors = list;
          disabledCollectors = list;
        }
      );
    };

  format = {
    type = types.anything;
    generate =
      name: value: "/nix/store/00000000000000000000000000000000-${name}?${builtins.toJSON value}";
  };
in
{
  options = {
    assertions = list;
    warnings = list;
    environment = anything { };
    systemd = anything { };
    users = anything { };
    networking.hostName = mkOption { type = types.str; };
    networking.firewall.enable = mkOption {
      type = types.bool;
      default = true;
    };
    networking.firewall.interfaces = mkOption {
      default = { };
      type = types.attrsOf (strict {
        allowedTCPPorts = mkOption {
          type = types.listOf types.port;
          default = [ ];
          apply = ports: lib.unique (lib.sort (a: b: a < b) ports);
        };
      });
    };
    networking.enableIPv6 = anything true;
    networking.firewall.allowedTCPPorts = list;
    networking.firewall.allowedUDPPorts = list;
    networking.firewall.backend = anything "iptables";
    networking.wireguard.interfaces = anything { };
    clan.core.networking.internalListenAddresses = list;
    # tests/nixos/test_fronts.py has the real ones.
    security.acme = anything { };
    services.vmalert.instances = mkOption {
      default = { };
      type = types.attrsOf (strict {
        enable = mkOption {
          type = types.bool;
          default = false;
        };
        settings = mkOption {
          type = types.submodule {
            freeformType = types.attrsOf types.anything;
            options."datasource.url" = mkOption { type = types.str; };
            options."notifier.url" = list;
            options.rule = list;
          };
          default = { };
        };
        rules = anything { };
      });
    };
    services.caddy = anything { };
    services.grafana = anything { };
    # tests/nixos/test_agents.py has the real one.
    services.journald = anything { };
    services.loki = anything { };
    services.nginx = anything { };
    services.oauth2-proxy = anything { };
    services.postgresql = anything { };
    # tests/nixos/test_storage.py has the real one.
    services.thanos = anything { };
    services.traefik = anything { };
    services.victorialogs = anything { };
    services.tailscale.enable = mkOption {
      type = types.bool;
      default = false;
    };
    services.tailscale.interfaceName = mkOption {
      type = types.str;
      default = "tailscale0";
    };
    services.prometheus = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      port = mkOption {
        type = types.port;
        default = 9090;
      };
      listenAddress = mkOption {
        type = types.str;
        default = "0.0.0.0";
      };
      enableAgentMode = mkOption {
        type = types.bool;
        default = false;
      };
      retentionTime = nullable types.str;
      webExternalUrl = nullable types.str;
      webConfigFile = nullable types.path;
      globalConfig = mkOption {
        default = { };
        type = strict {
          scrape_interval = nullable types.str;
          external_labels = nullable (types.attrsOf types.str);
        };
      };
      rules = mkOption {
        type = types.listOf types.str;
        default = [ ];
      };
      ruleFiles = list;
      alertmanagers = list;
      remoteRead = list;
      remoteWrite = list;
      extraFlags = list;
      scrapeConfigs = mkOption {
        type = types.listOf scrapeConfig;
        default = [ ];
      };
      # The type `attrs` does not resolve a mkDefault within a definition.
      alertmanager.configuration = nullable types.attrs;
      alertmanager.enable = mkOption {
        type = types.bool;
        default = false;
      };
      alertmanager.listenAddress = anything "";
      alertmanager.extraFlags = list;
      alertmanager.package = anything "alertmanager";
      alertmanager.port = anything 9093;
      alertmanager.webExternalUrl = nullable types.str;
      exporters = mkOption {
        default = { };
        type = types.submodule { options = lib.mapAttrs (name: _: exporter name) exporters; };
      };
    };
    services.victoriametrics = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      listenAddress = mkOption {
        type = types.str;
        default = ":8428";
      };
      retentionPeriod = nullable types.str;
      prometheusConfig = anything { };
      extraOptions = list;
    };
    services.alloy = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      extraFlags = list;
    };
    services.vmagent = {
      enable = mkOption {
        type = types.bool;
        default = false;
      };
      remoteWrite.url = nullable types.str;
      prometheusConfig = anything { };
      extraArgs = list;
    };
  };

  config._module.args.pkgs = lib.fix (pkgs: {
    clan-discovery = "/nix/store/00000000000000000000000000000000-clan-discovery";
    coreutils = "/nix/store/00000000000000000000000000000000-coreutils";
    iproute2 = "/nix/store/00000000000000000000000000000000-iproute2";
    victoriametrics = "/nix/store/00000000000000000000000000000000-victoriametrics";
    diffutils = "/nix/store/00000000000000000000000000000000-diffutils";
    formats.json = { }: format;
    # The tests check its commands, and run them.
    runCommand =
      name: _: script:
      "/nix/store/00000000000000000000000000000000-${name}!${script}";
    writeShellScript = name: script: "/nix/store/00000000000000000000000000000000-${name}!${script}";
    buildPackages = pkgs;
    stdenv.buildPlatform.canExecute = _: true;
    stdenv.hostPlatform = { };
  });
}
