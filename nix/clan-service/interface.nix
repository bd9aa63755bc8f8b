# The settings of both roles. What is a list here concatenates over role, tags and machine; a scalar is said once, or
# with mkDefault or mkForce. Whatever is not named goes to NixOS as it is.
#
# Types are those that clan-core turns into a JSON schema (lib/jsonschema).
{ cd }:
let
  methods = [
    "none"
    "tailscale"
    "dns"
    "static"
  ];
  interfaces =
    lib:
    lib.mkOption {
      type = lib.types.nullOr (lib.types.listOf lib.types.str);
      default = null;
      example = [ "tailscale0" ];
      description = ''
        Network interfaces on which the ports are open, and no others. Default: that of Tailscale, where a server's
        `discoveryMethod` is tailscale; else it must be said. `[ ]` opens nothing.
      '';
    };
  list =
    lib: description:
    lib.mkOption {
      type = lib.types.listOf lib.types.anything;
      default = [ ];
      inherit description;
    };
in
{
  server =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      freeformType = types.attrsOf types.anything;

      options = {
        enableAutoDiscovery = mkOption {
          type = types.bool;
          default = true;
          description = "Whether the exporters that the inventory declares are scraped.";
        };

        discoveryMethod = mkOption {
          type = types.either (types.enum methods) (types.listOf (types.enum methods));
          default = "none";
          example = [
            "tailscale"
            "dns"
          ];
          description = ''
            Which backends are asked where machines are, one or several; the first one that knows a machine counts. With
            `none` and `static` none is: the build renders the targets, each machine at its address in the clan's exports
            or at `<machine>.<domain>`.
          '';
        };

        dnsDiscovery = mkOption {
          type = types.attrsOf (
            types.submodule {
              options = {
                names = mkOption {
                  type = types.listOf types.str;
                  default = [ ];
                  description = "Names to ask. `*.example.org` stands for each machine below example.org.";
                };
                type = mkOption {
                  type = types.nullOr (
                    types.enum [
                      "A"
                      "AAAA"
                      "SRV"
                      "A+AAAA"
                    ]
                  );
                  default = null;
                  description = "What is asked for; default: A where a `port` is given, else SRV.";
                };
                port = mkOption {
                  type = types.nullOr types.port;
                  default = null;
                  description = "Port of addresses; default: the job's.";
                };
              };
            }
          );
          default = { };
          example.node = {
            names = [ "_node._tcp.example.org" ];
            type = "SRV";
          };
          description = "Targets that DNS lists, by job. Counts with the method `dns`.";
        };

        staticTargets = mkOption {
          type = types.attrsOf (types.listOf types.str);
          default = { };
          example.node = [ "192.168.1.10:9100" ];
          description = "Targets that are written down, by job. They count whatever the method.";
        };

        snapshot = mkOption {
          type = types.nullOr types.path;
          default = null;
          example = lib.literalExpression "./targets.nix";
          description = ''
            A committed file of `clan-discovery snapshot` (`./targets.nix` or `.json`). Its targets become the scrape
            configs, and nothing runs on the server, whatever the method. The file must be there before the clan can be
            evaluated: commit `{ }` first.
          '';
        };

        additionalScrapeConfigs = list lib "Scrape configs of your own, beside ours; no two jobs may bear one name.";

        backend = mkOption {
          type = types.enum (lib.attrNames cd.service.ownPorts);
          default = "prometheus";
          description = "What scrapes: Prometheus, VictoriaMetrics, or vmagent, which sends on to `remoteWrite`.";
        };

        port = mkOption {
          type = types.nullOr types.port;
          default = null;
          example = 9090;
          description = "Port of the server; default: 9090, VictoriaMetrics 8428, vmagent 8429.";
        };

        retentionTime = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "90d";
          description = "How long Prometheus or VictoriaMetrics keeps what it has; default: 30d, as in the service of today.";
        };

        scrapeServers = mkOption {
          type = types.bool;
          default = true;
          description = "Whether every server scrapes every server's own metrics, as job `prometheus`.";
        };

        sharding = mkOption {
          type = types.enum [
            "none"
            "hashmod"
          ];
          default = "none";
          description = ''
            `none`: each of several servers of an instance scrapes everything. `hashmod`: each scrapes its share; a
            target belongs to exactly one, and stays there when its address changes.
          '';
        };

        mode = mkOption {
          type = types.enum [
            "timer"
            "resident"
          ];
          default = "resident";
          description = "How the target files are kept: by a service that hears of changes at once, or by a timer.";
        };

        policy = mkOption {
          type = types.attrsOf types.anything;
          default = { };
          example.max_age = "1d";
          description = "`policy` of clan-discovery's config (docs/config.md).";
        };

        firewallInterfaces = interfaces lib;

        alertmanagers = list lib "As in services.prometheus; the lists of role, tags and machine are joined.";
        extraFlags = list lib "Flags of the backend; joined.";
        remoteRead = list lib "As in services.prometheus; joined.";
        remoteWrite = list lib "As in services.prometheus; joined. For vmagent, its `url` is where it sends to.";
        ruleFiles = list lib "As in services.prometheus; joined.";
        rules = list lib "As in services.prometheus; joined.";
        scrapeConfigs = list lib "As additionalScrapeConfigs, under NixOS's own name; joined.";
      };
    };

  exporter =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
      port = mkOption {
        type = types.nullOr types.port;
        default = null;
        description = "Its port; default: the type's in NixOS.";
      };
      collectors =
        verb:
        mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Collectors to ${verb}, where the exporter has such (node); joined.";
        };
      extraFlags = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Flags of the exporter; joined.";
      };
    in
    {
      freeformType = types.attrsOf types.anything;

      options = {
        exporterType = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "node";
          description = ''
            The exporter, as NixOS names it in services.prometheus.exporters, or a service that serves metrics itself,
            or a name of yours with a `port`. Default: node, where `exporters` names none. Every other setting of the
            role is about this one.
          '';
        };

        exporters = mkOption {
          type = types.attrsOf (
            types.submodule {
              freeformType = types.attrsOf types.anything;
              options = {
                enable = mkOption {
                  type = types.bool;
                  default = true;
                  description = "Whether this machine has it.";
                };
                inherit port extraFlags;
                enabledCollectors = collectors "enable";
                disabledCollectors = collectors "disable";
              };
            }
          );
          default = { };
          example = {
            node = { };
            postgres.port = 9188;
          };
          description = "Several exporters on one machine, by type; each with the settings that the role has for one.";
        };

        inherit port extraFlags;
        enabledCollectors = collectors "enable";
        disabledCollectors = collectors "disable";
        firewallInterfaces = interfaces lib;
      };
    };
}
