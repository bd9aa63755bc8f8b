# The systemd unit of each mode, its timer and its sandbox. Uses only `builtins`, so that a test can render it without
# nixpkgs and run it in a real systemd.
let
  inherit (builtins)
    concatStringsSep
    filter
    stringLength
    substring
    ;
  optionals = condition: values: if condition then values else [ ];
  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;

  home = "/var/lib/clan-discovery";

  # Scrapers start after the first refresh cycle: Prometheus looks for a missing directory only every five minutes. This
  # is ordering only; scrapers that do not exist do not matter.
  scrapers = [
    "alloy.service"
    "prometheus.service"
    "victoriametrics.service"
    "vmagent.service"
  ];

  # The unit needs tailscaled's socket, its own directory and, for DNS, the network. The user is static, because scrapers
  # cannot read the StateDirectory of a dynamic user (ADR 0012).
  #
  # /run stays visible: tailscaled replaces /run/tailscale at each restart, and a bind mount would keep the old one.
  hardening =
    { network, writable }:
    {
      User = "clan-discovery";
      Group = "clan-discovery";
      StateDirectory = [
        "clan-discovery"
        "clan-discovery/front"
        "clan-discovery/metrics"
        "clan-discovery/state"
        "clan-discovery/targets"
      ];
      StateDirectoryMode = "0755";
      UMask = "0022";
      ReadWritePaths = writable;

      AmbientCapabilities = "";
      CapabilityBoundingSet = "";
      DevicePolicy = "closed";
      KeyringMode = "private";
      LockPersonality = true;
      MemoryDenyWriteExecute = true;
      NoNewPrivileges = true;
      PrivateDevices = true;
      PrivateTmp = true;
      PrivateUsers = true;
      ProcSubset = "pid";
      ProtectClock = true;
      ProtectControlGroups = true;
      ProtectHome = true;
      ProtectHostname = true;
      ProtectKernelLogs = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      ProtectProc = "invisible";
      ProtectSystem = "strict";
      RemoveIPC = true;
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      SystemCallArchitectures = "native";
      SystemCallErrorNumber = "EPERM";
      SystemCallFilter = [
        "@system-service"
        "~@privileged"
        "~@resources"
      ];
      # Sockets of other programs.
      InaccessiblePaths = [
        "-/run/dbus"
        "-/run/docker.sock"
        "-/run/podman"
        "-/run/user"
      ];
    }
    // (
      if network then
        {
          RestrictAddressFamilies = [
            "AF_UNIX"
            "AF_INET"
            "AF_INET6"
          ];
        }
      else
        {
          # tailscaled's socket is a file, which can be reached from any network namespace.
          PrivateNetwork = true;
          RestrictAddressFamilies = [ "AF_UNIX" ];
          IPAddressDeny = "any";
        }
    );

  # Directories outside our own must exist and be writable already.
  writable =
    cfg:
    filter (path: path != null && !hasPrefix "${home}/" "${toString path}/") [
      cfg.settings.output.directory
      cfg.settings.state
    ];

  arguments =
    cfg:
    optionals cfg.metrics.textfile [
      "--metrics-file"
      "${home}/metrics/clan-discovery.prom"
    ];
  listenOf = web: if web == null then null else web.listen;

  # The networks of every tailnet (tailscale, net/tsaddr), and the metric with the lowest priority.
  tailnet = [
    "100.64.0.0/10"
    "fd7a:115c:a1e0::/48"
  ];
  last = "4294967295";
in
{
  # service : { cfg, configFile, kill } -> a NixOS systemd service
  service =
    {
      cfg,
      configFile,
      kill,
    }:
    let
      command = concatStringsSep " ";
      program = "${cfg.package}/bin/clan-discovery";
      common = {
        description = "Prometheus target files of the clan's machines";
        documentation = [ "man:clan-discovery(1)" ];
        wantedBy = [ "multi-user.target" ];
        # Ordering only: if tailscaled is late or missing, the refresh cycle is degraded, but the unit does not fail.
        after = [
          "network.target"
          "tailscaled.service"
        ];
        before = scrapers;
        environment = {
          NO_COLOR = "1";
          # The unit cannot write to the program's directory.
          PYTHONDONTWRITEBYTECODE = "1";
        };
      };
      confined = hardening {
        inherit (cfg) network;
        writable = writable cfg;
      };
    in
    if cfg.mode == "timer" then
      common
      // {
        serviceConfig = confined // {
          Type = "oneshot";
          ExecStart = command (
            [
              program
              "refresh"
              "--quiet"
              "--config"
              "${configFile}"
            ]
            ++ arguments cfg
          );
          # Degraded and held have alerts, and the files are kept.
          SuccessExitStatus = [
            3
            4
          ];
          TimeoutStartSec = "90s";
        };
      }
    else
      common
      // {
        startLimitIntervalSec = 0;
        serviceConfig = confined // {
          Type = "notify";
          NotifyAccess = "main";
          ExecStart = command (
            [
              program
              "run"
              "--config"
              "${configFile}"
              "--interval"
              cfg.interval
            ]
            ++ arguments cfg
            ++ optionals (cfg.verifyInterval != null) [
              "--verify-interval"
              cfg.verifyInterval
            ]
            # The listener of `web` serves metrics as well.
            ++ optionals (cfg.metrics.listen != null && cfg.metrics.listen != listenOf cfg.settings.web) [
              "--metrics-listen"
              cfg.metrics.listen
            ]
          );
          ExecReload = "${kill} -HUP $MAINPID";
          Restart = "on-failure";
          RestartSec = "5s";
          TimeoutStartSec = "90s";
          # The watchdog is fed between cycles, which take up to the backends' timeouts and output.lock_wait.
          WatchdogSec = cfg.watchdog;
        };
      };

  # timer : cfg -> a NixOS systemd timer
  timer = cfg: {
    description = "Refresh the Prometheus target files";
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = cfg.onCalendar;
      AccuracySec = "1s";
      # A different second for each server of a clan, always the same for one machine.
      RandomizedDelaySec = cfg.jitter;
      FixedRandomDelay = true;
      # After a suspend or a boot, a missed cycle runs at once.
      Persistent = true;
    };
  };

  # unreachable : path of ip -> a NixOS systemd service
  # While tailscaled is down, tailnet addresses are unreachable instead of taking the default route.
  unreachable = ip: {
    description = "Make tailnet addresses unreachable without tailscaled";
    wantedBy = [ "multi-user.target" ];
    before = [ "clan-discovery.service" ];
    after = [ "network-pre.target" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      ExecStart = map (network: "${ip} route replace unreachable ${network} metric ${last}") tailnet;
      ExecStop = map (network: "-${ip} route del unreachable ${network} metric ${last}") tailnet;
    };
  };
}
