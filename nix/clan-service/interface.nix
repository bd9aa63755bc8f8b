# The settings of the roles. Lists are joined over role, tags and machine; a scalar may be set once, or with mkDefault
# or mkForce. Other keys are passed to NixOS unchanged.
#
# Only types that clan-core can turn into a JSON schema (lib/jsonschema).
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
        Network interfaces on which the ports are open; `zt+` is every one that begins with `zt`. `[ ]` opens none.
        Default: the interface of the network in which the servers reach the machine. It must be set if that is not
        known: without an exported network, and with DNS or a snapshot.
      '';
    };
  file =
    lib: description:
    lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      inherit description;
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
          description = "Whether to scrape the exporters that the inventory declares.";
        };

        discoveryMethod = mkOption {
          type = types.either (types.enum methods) (types.listOf (types.enum methods));
          default = "none";
          example = [
            "tailscale"
            "dns"
          ];
          description = ''
            Backends that are asked where machines are. Where both know one, Tailscale counts. `none` and `static` ask
            none: the build renders the targets, with the addresses of the clan's exports or `<machine>.<domain>`.
          '';
        };

        dnsDiscovery = mkOption {
          type = types.attrsOf (
            types.submodule {
              options = {
                names = mkOption {
                  type = types.listOf types.str;
                  default = [ ];
                  description = "Names to look up. `*.example.org` stands for `<machine>.example.org` for each machine.";
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
                  description = "Record type. Default: A with a `port`, else SRV.";
                };
                port = mkOption {
                  type = types.nullOr types.port;
                  default = null;
                  description = "Port of addresses. Default: the job's.";
                };
              };
            }
          );
          default = { };
          example.node = {
            names = [ "_node._tcp.example.org" ];
            type = "SRV";
          };
          description = "Names that list targets, by job. Needs the method `dns`.";
        };

        staticTargets = mkOption {
          type = types.attrsOf (types.listOf types.str);
          default = { };
          example.node = [ "192.168.1.10:9100" ];
          description = "Static targets, by job, with any method.";
        };

        snapshot = mkOption {
          type = types.nullOr types.path;
          default = null;
          example = lib.literalExpression "./targets.nix";
          description = ''
            A committed file of `clan-discovery snapshot` (`./targets.nix` or `.json`), whose targets become the scrape
            configs. Nothing runs on the server, whatever the method. Commit `{ }` first: the clan cannot be evaluated
            without the file.
          '';
        };

        jobs = mkOption {
          type = types.attrsOf (types.attrsOf types.anything);
          default = { };
          example.node = {
            scheme = "https";
            tls_config.ca_file = "/etc/ssl/clan-ca.pem";
          };
          description = ''
            Scrape config of a job (docs/scrape-config.md), by exporter type, for every backend. What
            `services.clan-discovery.settings.jobs` of the machine sets wins.
          '';
        };

        additionalScrapeConfigs = list lib "Your own scrape configs. Job names must be unique.";

        backend = mkOption {
          type = types.enum (lib.attrNames cd.service.ownPorts);
          default = "prometheus";
          description = "The scraper. vmagent stores nothing and sends to `remoteWrite`, Alloy to `forwardTo`.";
        };

        forwardTo = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "prometheus.remote_write.default.receiver" ];
          description = ''
            Receivers of Alloy; joined. Default: that of clan-core's service `monitoring`, if the machine has its role
            `client`.
          '';
        };

        port = mkOption {
          type = types.nullOr types.port;
          default = null;
          example = 9090;
          description = "Port of the server. Default: 9090, VictoriaMetrics 8428, vmagent 8429. Alloy listens on loopback.";
        };

        retentionTime = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "90d";
          description = "How long Prometheus or VictoriaMetrics keeps samples. Default: 30d.";
        };

        scrapeServers = mkOption {
          type = types.bool;
          default = true;
          description = "Whether every server is scraped by every server, as job `prometheus`.";
        };

        sharding = mkOption {
          type = types.enum [
            "none"
            "hashmod"
            "rendezvous"
          ];
          default = "none";
          description = ''
            `none`: each server scrapes all targets. `rendezvous`: each target is scraped by `replicas` servers, and a
            server that joins or leaves moves only its own share (docs/sharding.md). `hashmod`: by exactly one server,
            which may be another one when a server joins or leaves. Shares do not depend on addresses.
          '';
        };

        replicas = mkOption {
          type = types.ints.positive;
          default = 1;
          example = 2;
          description = "How many servers scrape each target. Needs `sharding = \"rendezvous\"`.";
        };

        shardWeight = mkOption {
          type = types.numbers.between 0.001 1000;
          default = 1;
          example = 2;
          description = "Size of the machine's share, relative to other servers, from 0.001 to 1000. Needs `sharding = \"rendezvous\"`.";
        };

        shardState = mkOption {
          type = types.enum [
            "active"
            "joining"
            "leaving"
          ];
          default = "active";
          example = "joining";
          description = ''
            `joining` or `leaving`: the server scrapes a share, and the others do not count on it. To add or remove as
            many servers as `replicas` or more, deploy this first (docs/sharding.md). Needs `sharding = "rendezvous"`.
          '';
        };

        mode = mkOption {
          type = types.enum [
            "timer"
            "resident"
          ];
          default = "resident";
          description = "Whether a service or a timer updates the target files. The service reacts to changes at once.";
        };

        policy = mkOption {
          type = types.attrsOf types.anything;
          default = { };
          example.max_age = "1d";
          description = "`policy` of the config (docs/config.md).";
        };

        web = {
          enable = mkOption {
            type = types.bool;
            default = false;
            description = "Whether the server serves the targets and the status page over HTTP (docs/http.md).";
          };
          listen = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "100.64.0.7:9942";
            description = "Where it listens: loopback, or the machine's address in the tailnet (with `allow`). Default: 127.0.0.1:9942.";
          };
          allow = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [
              "tag:admin"
              "user@example.org"
            ];
            description = "Who may read on an address of the tailnet: tags and login names; joined.";
          };
          links = mkOption {
            type = types.attrsOf types.str;
            default = { };
            example.Node = "https://grafana.example.org/d/abc?var-instance={machine}";
            description = "Dashboards that the page of each machine links to, by title.";
          };
          openFirewall = mkOption {
            type = types.bool;
            default = false;
            description = "Whether to open its port on Tailscale's interface.";
          };
        };

        verifyInterval = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "5m";
          description = ''
            Time between questions to the server's own scraper, for metrics, alerts and the status page. Default: it is
            asked only by `clan-discovery verify`.
          '';
        };

        firewallInterfaces = interfaces lib;

        endpoints = mkOption {
          type = types.nullOr (types.listOf types.str);
          default = null;
          example = [ "metrics.example.org" ];
          description = ''
            Names of the server for clan-core's DNS and certificate services (dm-dns, pki). Default:
            `prometheus.<meta.domain>`; none for several servers, on loopback, for an agent, and if a machine is named
            prometheus. `[ ]` exports none.
          '';
        };

        alerts = import ../nixos/alert-options.nix lib;

        securityFiles = {
          ca = file lib "The CA of the exporters' certificates (`tls`). Their name is `prometheus-exporter`.";
          password = file lib "The password of the user `prometheus` (`basic-auth`).";
        };

        alertmanagers = list lib "As in services.prometheus; joined over role, tags and machine.";
        extraFlags = list lib "Flags of the scraper; joined.";
        remoteRead = list lib "As in services.prometheus; joined.";
        remoteWrite = list lib "As in services.prometheus; joined. vmagent takes only `url`.";
        ruleFiles = list lib "As in services.prometheus; joined.";
        rules = list lib "As in services.prometheus; joined.";
        scrapeConfigs = list lib "The same as additionalScrapeConfigs; joined.";
      };
    };

  exporter =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
      port = mkOption {
        type = types.nullOr types.port;
        default = null;
        description = "Its port. Default: as in NixOS.";
      };
      collectors =
        verb:
        mkOption {
          type = types.listOf types.str;
          default = [ ];
          description = "Collectors to ${verb}, for exporters that have them (node); joined.";
        };
      extraFlags = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Flags of the exporter; joined.";
      };
      security =
        description:
        mkOption {
          type = types.nullOr (
            types.enum [
              "none"
              "basic-auth"
              "tls"
            ]
          );
          default = null;
          example = "tls";
          inherit description;
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
            An exporter of services.prometheus.exporters, a service that serves metrics, or a name of your own with a
            `port`. Default: node, if `exporters` is empty. Other settings of the role belong to this exporter.
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
                  description = "Whether the machine has it.";
                };
                inherit port extraFlags;
                security = security "Default: that of the machine.";
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
          description = "Several exporters on one machine, by type, each with the settings of the role. `enable = false` removes one.";
        };

        expose = mkOption {
          type = types.attrsOf (import ../nixos/expose-options.nix lib);
          default = { };
          example.jellyfin = {
            port = 8096;
            front.domain = "films";
          };
          description = ''
            Other services of the machine, by name: with metrics, which are targets, or with a web interface, which is a
            front. Ports with metrics are opened as those of exporters.
          '';
        };

        limits = mkOption {
          type = types.attrsOf (types.either types.int types.float);
          default = { };
          example.disk_percent = 95;
          description = "Limits of alert rules for the machine, by name (docs/config.md). Default: those of the rules.";
        };

        units = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "nginx.service" ];
          description = "Systemd units that must be active on the machine: an alert fires if one is not. Joined.";
        };

        needs = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "db" ];
          description = ''
            Machines that this one does not work without: while one of them is down, the alerts on services of this
            machine are inhibited. Joined.
          '';
        };

        inherit port extraFlags;
        enabledCollectors = collectors "enable";
        disabledCollectors = collectors "disable";
        firewallInterfaces = interfaces lib;

        security = security ''
          How servers read the exporters of the machine: `none` (plain HTTP), `basic-auth` (with a password, not encrypted)
          or `tls` (encrypted, with a certificate of the exporter, without a password). Clan vars make the secrets.
          Default: `none`.
        '';
        securityFiles = {
          certificate = file lib "Certificate for `prometheus-exporter` (`tls`), on the machine. Default: clan vars make it.";
          key = file lib "Its key, on the machine.";
          webConfig = file lib "Web config of exporter-toolkit with `basic_auth_users` (`basic-auth`), on the machine.";
        };

        listen = mkOption {
          type = types.nullOr (types.enum [ "internal" ]);
          default = null;
          example = "internal";
          description = ''
            `internal`: exporters of NixOS listen only on the machine's address in
            `clan.core.networking.internalListenAddresses`, which the clan's network fills (yggdrasil). Default: all
            addresses.
          '';
        };
      };
    };

  front =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      options = import ../nixos/front/words.nix lib // {
        metrics = {
          enable = mkOption {
            type = types.bool;
            default = true;
            description = "Whether the proxy serves its own metrics, which become a target.";
          };
          port = mkOption {
            type = types.nullOr types.port;
            default = null;
            example = 9180;
            description = "Their port. Default: Caddy 9180, nginx 9113, Traefik 8082.";
          };
        };
        receive =
          let
            receive = import ../nixos/receive/words.nix lib;
          in
          receive
          // {
            enable = mkOption {
              type = types.nullOr types.bool;
              default = null;
              description = "Whether the machine receives what agents send (docs/agents.md). Default: whether the clan has agents, and this machine a store, or no machine of the role has one.";
            };
            metrics.url = receive.metrics.url // {
              description = ''
                The VictoriaMetrics or vmagent that gets the metrics. Default: the VictoriaMetrics of this machine if it
                is in the role server, else that of the clan's only such server.
              '';
            };
            logs = receive.logs // {
              url = receive.logs.url // {
                description = "The VictoriaLogs or Loki that gets the logs. Default: that of the role logs, likewise.";
              };
            };
            tokens = receive.tokens // {
              description = ''
                Files with the tokens of each agent, by machine. systemd reads them as root. Default: the clan vars of
                each agent, of its generation and of the one before.
              '';
            };
          };
        firewallInterfaces = interfaces lib;
      };
    };

  agent =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      options = {
        urls = mkOption {
          type = types.listOf types.str;
          default = [ ];
          example = [ "https://push.home.example.org" ];
          description = "Where the machine sends. Default: every machine in the role front that receives.";
        };
        caFile = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "/etc/ssl/clan-ca.pem";
          description = "The CA of their certificates. Default: the CAs of the system.";
        };
        token = {
          file = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "/run/secrets/agent-token";
            description = "The file of the machine's token, on the machine. Default: clan vars make it.";
          };
          generation = mkOption {
            type = types.ints.positive;
            default = 1;
            example = 2;
            description = ''
              Increase it for a new token. Machines that receive accept this one and the one before: deploy them first,
              then the agent (docs/agents.md#tokens).
            '';
          };
        };
        queue.maxDiskUsage = mkOption {
          type = types.str;
          default = "1GiB";
          description = "Size of the queue of metrics on disk. When it is full, the oldest are dropped.";
        };
        scrapeInterval = mkOption {
          type = types.str;
          default = "1m";
          description = "How often the machine reads its own exporters.";
        };
        logs = {
          enable = mkOption {
            type = types.nullOr types.bool;
            default = null;
            description = "Whether the machine sends its journal. Default: whether the clan has the role logs.";
          };
          maxDiskUsage = mkOption {
            type = types.str;
            default = "1GiB";
            description = "Size of the queue of logs on disk. When it is full, the oldest are dropped.";
          };
        };
      };
    };

  logs =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      options = {
        backend = mkOption {
          type = types.enum [
            "victorialogs"
            "loki"
          ];
          default = "victorialogs";
          description = "The store of the logs.";
        };
        retention = mkOption {
          type = types.str;
          default = "30d";
          description = "How long the store keeps logs, and how long the journal of each agent keeps them at most.";
        };
        port = mkOption {
          type = types.nullOr types.port;
          default = null;
          example = 9428;
          description = "Its port. Default: VictoriaLogs 9428, Loki 3100.";
        };
        listenAddress = mkOption {
          type = types.str;
          default = "127.0.0.1";
          description = ''
            Its address. A client that reaches it past the machine that receives can write under any name.
          '';
        };
        firewallInterfaces = interfaces lib;
      };
    };

  alerting =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      options = import ../nixos/alerting/words.nix lib // {
        listenAddress = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "100.64.0.7";
          description = "The address of Alertmanager. Default: loopback if every server is on its machine, else all addresses.";
        };
        firewallInterfaces = interfaces lib;
      };
    };

  dashboards =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
    in
    {
      options = import ../nixos/dashboards/words.nix lib // {
        datasources = mkOption {
          type = types.listOf (types.attrsOf types.anything);
          default = [ ];
          description = "Datasources of Grafana, beside those of every machine in the roles server and logs; joined.";
        };
      };
    };

  storage =
    { lib, ... }:
    let
      inherit (lib) mkOption types;
      words = import ../nixos/storage/words.nix { inherit lib cd; };
      port =
        description:
        mkOption {
          type = types.nullOr types.port;
          default = null;
          inherit description;
        };
    in
    {
      options = words.options // {
        port = port "The port of the nodes that takes writes. Default: ${words.writePorts}.";
        readPort = port "The port of the nodes that queries are sent to. Default: ${words.readPorts}.";
        listenAddress = mkOption {
          type = types.nullOr types.str;
          default = null;
          example = "100.64.0.7";
          description = "The address of the store. Default: every address.";
        };
        firewallInterfaces = interfaces lib;
      };
    };
}
