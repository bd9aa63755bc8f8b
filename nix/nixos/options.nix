# The options of `services.clan-discovery`. `settings` is the config of clan-discovery (docs/config.md): typed where a
# mistake is likely, free where Python says it better; its build checks the whole.
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

  # A submodule that takes every other key too.
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
        "JSON of `nix eval --json .#clanInternals.inventoryClass.inventorySerialization`, or one in the same shape. A file in the store is checked when the system is built."
        (lib.literalExpression "./inventory.json");
    flake = optional types.str "Not for the unit, which has no Nix: an assertion says so." ".";
    settings = optional file "JSON of the merged settings, which then win over merging." (
      lib.literalExpression "./settings.json"
    );
    exports = optional file "JSON of the clan's exports: where a machine is while no backend sees it." (
      lib.literalExpression "./exports.json"
    );
  };

  backends = open {
    tailscale =
      optional
        (types.attrsOf (open {
          socket =
            optional types.str "tailscaled's socket; default: /run/tailscale/tailscaled.sock."
              "/run/tailscale/tailscaled.sock";
          tags = mkOption {
            type = types.listOf types.str;
            default = [ ];
            description = "Only nodes with one of these ACL tags are machines.";
            example = [ "server" ];
          };
        }))
        "Tailnets, by a name of yours. Without it, a server with `discoveryMethod = \"tailscale\"` gets one."
        { tailnet.tags = [ "server" ]; };
    dns = optional (types.attrsOf json.type) "DNS, by a name of yours." {
      lan = {
        names = [ "_node._tcp.example.org" ];
        job = "node";
      };
    };
    static = optional (types.attrsOf json.type) "Lists, by a name of yours." {
      lab.targets.node = [ "10.0.0.5:9100" ];
    };
  };

  settings = open {
    inventory = optional inventory "The clan inventory: which targets there are." {
      file = "/etc/clan/inventory.json";
    };
    server =
      optional types.str "The machine that scrapes; default: every server of the instances."
        "monitor";
    backends = mkOption {
      type = backends;
      default = { };
      description = "Who is asked where machines are.";
    };
    exporters = mkOption {
      type = types.attrsOf (open {
        port = optional types.port "Its port; default: the type's in NixOS." 9100;
        labels = optional (types.attrsOf types.str) "Labels on each of its targets." { site = "home"; };
      });
      default = { };
      description = "Exporter types: settings, and rules (`select`) that pick machines from the tailnet.";
      example.node.select.tags = [ "server" ];
    };
    labels = mkOption {
      type = types.attrsOf types.str;
      default = { };
      description = "Labels on every target.";
      example.site = "home";
    };
    output = mkOption {
      type = open {
        directory = mkOption {
          type = types.str;
          default =
            if cfg.mode == "static" then "/etc/clan-discovery/targets" else "/var/lib/clan-discovery/targets";
          defaultText = lib.literalMD "/var/lib/clan-discovery/targets; in static mode always /etc/clan-discovery/targets";
          description = "A directory of its own for `<job>.json`. Elsewhere than below /var/lib/clan-discovery it must be there already, and writable by the user clan-discovery.";
        };
        owner = mkOption {
          type = types.strMatching "[[:print:]]{1,200}";
          default = "services.clan-discovery";
          example = "monitoring";
          description = "Name written into `directory` as its owner. A config with another name is refused there (exit 5). Outside NixOS the default is the config's path, which here would change with each system.";
        };
        static = mkOption {
          type = types.bool;
          readOnly = true;
          default = cfg.mode == "static";
          defaultText = lib.literalExpression "config.services.clan-discovery.mode == \"static\"";
          description = "Whether the build makes the target files; `refresh` and `run` then say so.";
        };
      };
      default = { };
      description = "Where target files go.";
    };
    state = mkOption {
      type = types.str;
      default = "/var/lib/clan-discovery/state";
      description = "A directory for what is remembered between rounds.";
    };
  };
in
{
  options.services.clan-discovery = {
    enable = mkEnableOption "clan-discovery, which writes Prometheus target files for the machines that a clan declares";

    package = mkOption {
      type = types.package;
      default = pkgs.clan-discovery or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.clan-discovery, or the one of this repository";
      description = "The package to use.";
    };

    buildPackage = mkOption {
      type = types.package;
      default =
        if pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform then
          cfg.package
        else
          pkgs.buildPackages.clan-discovery or (pkgs.buildPackages.callPackage ../package.nix { });
      defaultText = lib.literalMD "`package`; in a cross build, `pkgs.buildPackages.clan-discovery` or the one of this repository";
      description = ''
        The package that a build runs (`check`, `render`), of the platform that builds. In a cross build, set it beside
        a `package` of your own.
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
        `timer`: one round at each `onCalendar`, with nothing running between. `resident`: a service that also does a
        round at once when the tailnet changes. `static`: no unit; the build renders the declared targets, which are
        linked at /etc/clan-discovery/targets. No backend may have to be asked, and the inventory is a file of the store.
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
        The jobs (exporter types) of the inventory, for `scrapeConfigs`. Jobs of `settings.backends` and
        `settings.exporters` are added. In static mode the build writes `[]` for a job without targets, and fails on a
        job that is not listed.
      '';
    };

    snapshot = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./targets.nix";
      description = ''
        A committed file of `clan-discovery snapshot` (`.nix` or `.json`), whose targets become `scrapeConfigs`. Instead
        of `enable`: nothing runs, and `settings` are not read. The scrape configs of your own that it holds are not
        among them: `lib.additional` of the flake reads these.
      '';
    };

    scrapeConfigs = mkOption {
      type = types.listOf types.raw;
      readOnly = true;
      description = ''
        A scrape config for each job, for services.prometheus.scrapeConfigs: from `snapshot`, or with the target files of
        `jobs`; `[ ]` without either. VictoriaMetrics and vmagent refuse the key `refresh_interval`, which they have in
        static mode: hand them on by `lib.victoriametrics` of the flake (nix/lib).
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
      description = "Resident mode: the time between two rounds where nothing changes.";
    };

    onCalendar = mkOption {
      type = types.str;
      default = "*:*:0/30";
      example = "minutely";
      description = "Timer mode: when a round comes, as systemd.time(7) writes calendar events.";
    };

    jitter = mkOption {
      type = types.str;
      default = "5s";
      example = "0";
      description = "Timer mode: a round comes up to so much later, on each machine by an amount of its own.";
    };

    watchdog = mkOption {
      type = types.str;
      default = "5min";
      description = "Resident mode: systemd restarts it after so long without a sign of life. Well above the backends' timeouts.";
    };

    network = mkOption {
      type = types.bool;
      default =
        cfg.settings.inventory != null
        || cfg.settings.backends.dns or null != null
        || cfg.metrics.listen != null;
      defaultText = lib.literalMD "true where DNS may be asked or metrics are served: with an `inventory`, with `backends.dns`, or with `metrics.listen`";
      example = false;
      description = "Whether the unit has a network. Tailscale alone needs none: its socket is a file.";
    };

    checkConfig = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the build runs `clan-discovery check` on the config. Where the inventory is no file of the store, it cannot, and does not.";
    };

    metrics = {
      textfile = mkOption {
        type = types.bool;
        default = true;
        description = "Whether metrics are written to /var/lib/clan-discovery/metrics/clan-discovery.prom, for node exporter's textfile collector.";
      };
      listen =
        optional types.str "Resident mode: serve metrics at this address of the loopback."
          "127.0.0.1:9199";
    };

    unreachableRoute = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether an unreachable route for 100.64.0.0/10 is set beneath all others: while tailscaled is away, scrapes of
        tailnet addresses then end on this machine, and do not leave by the default route. Not where a provider uses
        these addresses.
      '';
    };

    settings = mkOption {
      type = settings;
      default = { };
      description = "The config of clan-discovery (docs/config.md). Every key of it may stand here; its build checks it.";
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
