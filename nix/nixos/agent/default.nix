# `services.clan-discovery.agent`: this machine reads its own exporters on loopback and sends their metrics, and its
# journal, to machines that receive. Options are in `options.nix`, units in `unit.nix`.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  cd = import ../../lib;
  unit = import ./unit.nix;
  inStore = import ../in-store.nix { inherit lib; };
  cfg = config.services.clan-discovery;
  inherit (cfg) agent machine;
  inherit (agent) logs;
  json = pkgs.formats.json { };

  sendsLogs = agent.enable && logs.enable;
  hasVlagent = sendsLogs && logs.backend == "victorialogs";
  hasAlloy = sendsLogs && logs.backend == "loki";

  # What the machine exposes itself, and the agent's own metrics.
  own = {
    ${machine} = cd.exposed.from cfg;
  };
  jobs = lib.unique (
    lib.sort (a: b: a < b) (
      agent.jobs
      ++ cd.exposed.pushedJobsOf own.${machine}
      ++ [ "vmagent" ]
      ++ lib.optional hasVlagent "vlagent"
    )
  );

  raw = json.generate "clan-discovery-agent.json" {
    inventory = {
      exposed = json.generate "clan-exposed.json" (cd.exposed.documentOf machine own);
    }
    // lib.optionalAttrs (agent.inventory != null) { file = agent.inventory; };
    output.directory = "/etc/clan-discovery/agent";
  };
  targets =
    pkgs.buildPackages.runCommand "clan-discovery-agent-targets"
      { nativeBuildInputs = [ cfg.buildPackage ]; }
      ''
        clan-discovery render --config ${raw} --agent ${lib.escapeShellArg machine} --output $out --only-listed${
          lib.concatMapStrings (job: " --job ${lib.escapeShellArg job}") jobs
        }
      '';

  # Through /etc, so that new targets need no restart of vmagent: it reads the files again each minute.
  scrapeConfig = json.generate "clan-discovery-agent-scrape.json" (
    {
      global.scrape_interval = agent.scrapeInterval;
    }
    // cd.victoriametrics (
      cd.configured
        (lib.filterAttrsRecursive (_: value: value != null) (cfg.settings.jobs // agent.scrape))
        (
          cd.fileSdJobs {
            directory = "/etc/clan-discovery/agent";
            inherit jobs;
          }
        )
    )
  );

  script = pkgs.writeShellScript "clan-discovery-cursor" (
    unit.script {
      coreutils = "${pkgs.coreutils}/bin";
      grep = "${pkgs.gnugrep}/bin/grep";
      cmp = "${pkgs.diffutils}/bin/cmp";
      curl = "${pkgs.curl}/bin/curl";
      journalctl = "${config.systemd.package}/bin/journalctl";
    }
  );

  given = {
    inherit (agent) caFile;
    inherit urls;
    tokenFile = toString agent.tokenFile;
  };

  # The paths of the receiver follow.
  urls = map (lib.removeSuffix "/") agent.urls;
  isLoopback = url: builtins.match "http://(127\\..*|localhost|\\[::1])([:/].*)?" url != null;
  open = lib.filter (url: lib.hasPrefix "http://" url && !isLoopback url) agent.urls;
  ingestion = [
    "/api/v1/write"
    "/insert/jsonline"
    "/loki/api/v1/push"
  ];
  whole = lib.filter (url: lib.any (path: lib.hasSuffix path url) ingestion) urls;
  hasUpload = options.services.journald ? upload;

  require = assertion: message: {
    inherit assertion;
    message = "services.clan-discovery.agent${message}";
  };
in
{
  options.services.clan-discovery.agent = import ./options.nix { inherit lib pkgs; };

  config = lib.mkMerge [
    (lib.mkIf agent.enable {
      assertions = [
        (require (agent.urls != [ ])
          ".urls is empty: set it to the machines that receive, for example [ \"https://push.home.example.org\" ]"
        )
        (require (agent.tokenFile != null)
          ".tokenFile is not set: make a token with `clan-discovery token new ${machine}`, and set the path of its file"
        )
        (require (agent.tokenFile == null || !inStore agent.tokenFile)
          ".tokenFile is ${toString agent.tokenFile}, in the Nix store, which every user can read: write the path of a file on the machine, for example \"/run/secrets/agent-token\""
        )
        (require (
          open == [ ]
        ) ".urls: ${lib.concatStringsSep ", " open} would send the token unencrypted: write https://")
        (require (
          whole == [ ]
        ) ".urls: ${lib.concatStringsSep ", " whole}: leave out the path, which the agent adds itself")
        (require (lib.allUnique urls) ".urls names a machine twice: it would get everything twice")
        (require (
          !hasVlagent || hasUpload
        ) ".logs: this NixOS has no services.journald.upload: update nixpkgs, or set logs.enable = false")
      ];

      environment.etc."clan-discovery/agent".source = targets;
      systemd.services.${unit.names.agent} = unit.agent (
        given
        // {
          vmagent = lib.getExe' agent.package "vmagent";
          config = scrapeConfig;
          inherit (agent.queue) maxDiskUsage;
        }
      );
    })
    (lib.mkIf sendsLogs {
      # The journal is the buffer: an entry that it has dropped cannot be sent again.
      services.journald.extraConfig = "MaxRetentionSec=${logs.retention}";
    })
    (lib.mkIf hasVlagent {
      services.journald = lib.optionalAttrs hasUpload {
        upload = {
          enable = true;
          settings.Upload.URL = unit.journal;
        };
      };
      systemd.services = {
        ${unit.names.logs} = unit.logs (
          given
          // {
            vlagent = lib.getExe' logs.package "vlagent";
            inherit (logs) maxDiskUsage;
            inherit script;
          }
        );
        ${unit.names.cursor} = unit.cursor script;
        ${unit.names.upload} = unit.upload script;
      };
      systemd.timers.${unit.names.cursor} = unit.timer;
    })
    (lib.mkIf hasAlloy {
      # Alloy would not read the config, and nothing would be sent.
      assertions = [
        (require (lib.hasInfix " /etc/alloy " (toString config.systemd.services.alloy.serviceConfig.ExecStart)) ".logs: services.alloy.configPath is ${toString config.services.alloy.configPath}, but the agent's config is in /etc/alloy: remove it, and set environment.etc.\"alloy/config.alloy\"")
      ];
      services.alloy.enable = true;
      environment.etc."alloy/clan-discovery-agent.alloy".text = import ./alloy.nix { inherit lib; } {
        inherit (agent) caFile;
        inherit urls;
        inherit (logs) retention;
        tokenFile = "/run/credentials/alloy.service/clan-discovery-token";
      };
      systemd.services.alloy.serviceConfig.LoadCredential = [
        (unit.credential "clan-discovery-token" (toString agent.tokenFile))
      ];
    })
    # nixpkgs removed the option in 26.05, and says so itself.
    (lib.mkIf (agent.enable || cfg.enable) {
      assertions = lib.optional (options.services ? promtail && options.services.promtail ? enable) {
        assertion = !config.services.promtail.enable;
        message = "services.promtail is end of life, and would send the journal a second time: remove it, and set services.clan-discovery.agent.logs.enable (in a clan: the role agent)";
      };
    })
  ];
}
