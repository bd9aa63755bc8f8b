# The options of `services.clan-discovery`. `settings` is the config of clan-discovery (docs/config.md). Only keys that
# other options need have types here: the build checks the whole config, with better messages.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkEnableOption mkOption types;
  json = pkgs.formats.json { };
  cfg = config.services.clan-discovery;

  # A clan's servers say whom to ask.
  isClan =
    cfg.settings.inventory != null
    && (cfg.settings.inventory.file != null || cfg.settings.inventory.flake != null);

  # A submodule that accepts any other key.
  open =
    options:
    types.submodule {
      freeformType = json.type;
      inherit options;
    };
  optional =
    type: description: example:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description example;
    };
  file = types.either types.path types.str;

  inventory = open {
    file =
      optional file
        "The inventory as JSON (docs/inventory.md). A file in the store is checked by the build."
        (lib.literalExpression "./inventory.json");
    flake = optional types.str "Refused by an assertion: the unit has no Nix." ".";
    settings = optional file "The merged settings as JSON. They take precedence over merging here." (
      lib.literalExpression "./settings.json"
    );
    exports = optional file "The clan's exports as JSON: addresses of machines that no backend sees." (
      lib.literalExpression "./exports.json"
    );
    manifest =
      optional
        (open {
          file = mkOption {
            type = file;
            description = "The manifest as JSON, best reduced by `manifest.public` of `nix/lib`.";
            example = lib.literalExpression "./service-manifest.json";
          };
        })
        "A service manifest (docs/sources.md)."
        {
          file = "/etc/service-manifest.json";
          exporters.postgresql = [ "postgres" ];
        };
    exposed =
      optional file
        "The services that machines expose, as JSON. Default: those of this machine and of `fleet`."
        (lib.literalExpression "./exposed.json");
  };

  backends = open {
    tailscale =
      optional
        (types.attrsOf (open {
          socket =
            optional types.str "tailscaled's socket. Default: /run/tailscale/tailscaled.sock."
              "/run/tailscale/tailscaled.sock";
          tags = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "Only nodes with one of these ACL tags are machines.";
            example = [ "server" ];
          };
        }))
        "Tailnets, by name. Default: one, if a server's `discoveryMethod` is `tailscale`."
        { tailnet.tags = [ "server" ]; };
    dns = optional (types.attrsOf json.type) "DNS backends, by name." {
      lan = {
        names = [ "_node._tcp.example.org" ];
        job = "node";
      };
    };
    static = optional (types.attrsOf json.type) "Static targets and addresses, by name." {
      lab.targets.node = [ "10.0.0.5:9100" ];
    };
  };

  web = open {
    listen = mkOption {
      type = types.str;
      default = "127.0.0.1:9942";
      description = "The address and the port. The unit cannot listen on a port below 1024.";
    };
  };

  verify = open {
    scrapers = mkOption {
      type = types.attrsOf (open {
        url = mkOption {
          type = types.str;
          example = "http://127.0.0.1:9090";
          description = "Its URL.";
        };
      });
      default = { };
      description = "Scrapers, by name. The unit's user must be able to read the files of passwords and tokens.";
    };
  };

  settings = open {
    inventory = optional inventory "The clan inventory, which declares the targets." {
      file = "/etc/clan/inventory.json";
    };
    server =
      optional types.str "The machine that scrapes. Default: every server of the instances."
        "monitor";
    backends = mkOption {
      type = backends;
      default = { };
      description = "Backends, which are asked where machines are.";
    };
    exporters = mkOption {
      type = types.attrsOf (open {
        port = optional types.port "Its port. Default: as in NixOS." 9100;
        labels = optional (types.attrsOf types.str) "Labels of its targets." { site = "home"; };
      });
      default = { };
      description = "Exporter types: settings, and rules (`select`) that select machines of the tailnet.";
      example.node.select.tags = [ "server" ];
    };
    jobs = mkOption {
      type = types.attrsOf (types.attrsOf json.type);
      default = { };
      description = "Scrape config of a job (docs/scrape-config.md), merged into `scrapeConfigs`.";
      example.node = {
        scheme = "https";
        basic_auth = {
          username = "prometheus";
          password_file = "/run/secrets/scrape";
        };
      };
    };
    labels = mkOption {
      type = types.attrsOf types.str;
      default = { };
      description = "Labels of every target.";
      example.site = "home";
    };
    output = mkOption {
      type = open {
        directory = mkOption {
          type = types.str;
          default =
            if cfg.mode == "static" then "/etc/clan-discovery/targets" else "/var/lib/clan-discovery/targets";
          defaultText = lib.literalMD "`/var/lib/clan-discovery/targets`; in static mode always `/etc/clan-discovery/targets`";
          description = "Directory for the target files. Outside /var/lib/clan-discovery it must exist and be writable by the user clan-discovery.";
        };
        owner = mkOption {
          type = types.strMatching "[[:print:]]{1,200}";
          default = "services.clan-discovery";
          example = "monitoring";
          description = "Name of the owner of `directory`. A config with another name is refused there (exit 5).";
        };
        split =
          let
            count = types.ints.between 1 1024;
          in
          mkOption {
            type = types.either count (types.attrsOf count);
            default = 1;
            example.node = 64;
            description = "How many target files each job has, or the jobs of a set: for jobs of over 50 MB (docs/running.md#large-jobs).";
          };
        static = mkOption {
          type = types.bool;
          readOnly = true;
          default = cfg.mode == "static";
          defaultText = lib.literalExpression "config.services.clan-discovery.mode == \"static\"";
          description = "Whether the build renders the target files; `refresh` and `run` then refuse to.";
        };
      };
      default = { };
      description = "Where target files are written.";
    };
    verify =
      optional verify "The running programs that `clan-discovery verify` asks (docs/config.md)."
        {
          scrapers.prometheus.url = "http://127.0.0.1:9090";
        };
    web =
      optional web "Resident mode: serve the targets and the status page over HTTP (docs/http.md)."
        { };
    state = mkOption {
      type = types.str;
      default = "/var/lib/clan-discovery/state";
      description = "Directory for the state, which is kept between refresh cycles.";
    };
  };
in
{
  options.services.clan-discovery = {
    enable = mkEnableOption "clan-discovery, which writes Prometheus target files for the machines of a clan";

    package = lib.mkPackageOption {
      clan-discovery = pkgs.clan-discovery or (pkgs.callPackage ../package.nix { });
    } "clan-discovery" { extraDescription = "If `pkgs` has none, it is the one of this repository."; };

    buildPackage = mkOption {
      type = types.package;
      default =
        if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
          cfg.package
        else
          pkgs.buildPackages.clan-discovery or (pkgs.buildPackages.callPackage ../package.nix { });
      defaultText = lib.literalMD "`package`; in a cross build, `pkgs.buildPackages.clan-discovery` or the one of this repository";
      description = ''
        The package that the build runs (`check`, `render`). If you set `package` and build for another platform, set
        this as well.
      '';
    };

    mode = mkOption {
      type = types.enum [
        "timer"
        "resident"
        "static"
      ];
      default = "timer";
      example = "resident";
      description = ''
        `timer`: refresh at each `onCalendar`. `resident`: a service that also refreshes when the tailnet or a file
        changes. `static`: no unit; the build renders the targets to /etc/clan-discovery/targets. It needs an inventory
        in the store, and no backend that must be asked.
      '';
    };

    jobs = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "node"
        "systemd"
      ];
      description = ''
        Exporter types of the inventory, for `scrapeConfigs`. Jobs of `settings.backends` and `settings.exporters` are
        added. In static mode, the build fails on a job that is not listed.
      '';
    };

    snapshot = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./targets.nix";
      description = ''
        A committed file of `clan-discovery snapshot` (`.nix` or `.json`), whose targets become `scrapeConfigs`. Use it
        instead of `enable`: nothing runs, and `settings` are not read. `lib.additional` of the flake reads the
        additional scrape configs in it.
      '';
    };

    machine = mkOption {
      type = types.str;
      default = if cfg.settings.server != null then cfg.settings.server else config.networking.hostName;
      defaultText = lib.literalMD "`settings.server`, else the host name";
      example = "laptop";
      description = "The name that this machine has in the sources.";
    };

    share = mkOption {
      type = types.nullOr (types.attrsOf types.ints.unsigned);
      default = null;
      internal = true;
      description = "The share of this server: its `number` among `members` servers. The scraper has rules for it.";
    };

    scrapeConfigs = mkOption {
      type = types.listOf types.raw;
      readOnly = true;
      description = ''
        A scrape config for each job, for services.prometheus.scrapeConfigs: from `snapshot`, or with the target files of
        `jobs`. For VictoriaMetrics and vmagent, which refuse the key `refresh_interval` of static mode, convert them with
        `lib.victoriametrics` of the flake.
      '';
      example = lib.literalExpression ''
        {
          services.victoriametrics.prometheusConfig =
            inputs.clan-discovery.lib.victoriametrics config.services.clan-discovery.scrapeConfigs;
        }
      '';
    };

    interval = mkOption {
      type = types.str;
      default = "30s";
      example = "1m";
      description = "Resident mode: time between refresh cycles if nothing changes.";
    };

    verifyInterval = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "5m";
      description = ''
        Resident mode: time between questions to the programs of `settings.verify`, for metrics, alerts and the status
        page. Default: they are not asked.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to open the port of `settings.web.listen` on Tailscale's interface, and nowhere else. It must be an
        address of the tailnet.
      '';
    };

    onCalendar = mkOption {
      type = types.str;
      default = "*:*:0/30";
      example = "minutely";
      description = "Timer mode: when to refresh, as a calendar event of systemd.time(7).";
    };

    jitter = mkOption {
      type = types.str;
      default = "5s";
      example = "0";
      description = "Timer mode: maximum random delay per run; fixed per machine.";
    };

    watchdog = mkOption {
      type = types.str;
      default = "5min";
      description = "Resident mode: systemd restarts a service that does not respond for this long. Keep it well above the backends' timeouts.";
    };

    network = mkOption {
      type = types.bool;
      default =
        isClan
        || cfg.metrics.listen != null
        || cfg.settings.web != null
        || cfg.verifyInterval != null
        || lib.any (kind: cfg.settings.backends.${kind} != null) (
          lib.subtractLists [ "static" "tailscale" ] (lib.attrNames cfg.settings.backends)
        );
      defaultText = lib.literalMD "`true` with `settings.inventory.file`, `settings.web`, `verifyInterval`, `metrics.listen`, or a backend that is not `tailscale` or `static`";
      example = false;
      description = "Whether the unit has a network. Tailscale alone needs none.";
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the build runs `clan-discovery check` on the config, if the inventory is in the store.";
    };

    unreachableRoute = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to add an unreachable route for 100.64.0.0/10 with the lowest priority. Without it, scrapes of tailnet
        addresses take the default route while tailscaled is down. Do not use it if your provider uses these addresses.
      '';
    };

    settings = mkOption {
      type = settings;
      default = { };
      description = "The config of clan-discovery, with any key of docs/config.md. The build checks it.";
      example = lib.literalExpression ''
        {
          inventory.file = ./inventory.json;
          server = "monitor";
          policy.max_age = "1d";
        }
      '';
    };
  };
}
