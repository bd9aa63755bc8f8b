# What systemd is told: the unit of either mode, its timer, and what the process may do. On `builtins` alone, so that a
# test renders it without nixpkgs, and a real systemd runs it.
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

  # Whoever scrapes starts after the first round: Prometheus looks for a directory that is not there only every five
  # minutes. None of these is wanted or required: what is not there is not waited for.
  scrapers = [
    "alloy.service"
    "prometheus.service"
    "victoriametrics.service"
    "vmagent.service"
  ];

  # The unit needs the socket of tailscaled, its own directory, and, where DNS is asked, the network. A scraper must
  # read what it writes, so the user is a static one: a dynamic user's StateDirectory is below /var/lib/private, which
  # nobody but root may enter (ADR 0012).
  #
  # /run stays visible: tailscaled removes and makes /run/tailscale anew at each restart, and a bind mount would hold on
  # to the old one.
  hardening =
    { network, writable }:
    {
      User = "clan-discovery";
      Group = "clan-discovery";
      StateDirectory = [
        "clan-discovery"
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
      # Sockets of others that the name of a file would lead to.
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
          # A socket in the file system is reached from any network namespace.
          PrivateNetwork = true;
          RestrictAddressFamilies = [ "AF_UNIX" ];
          IPAddressDeny = "any";
        }
    );

  # What is outside of our own directory must be there, and ours, already.
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
  # The networks of every tailnet (tailscale, net/tsaddr), and the metric beneath all others.
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
        documentation = [ "man:systemd.exec(5)" ];
        wantedBy = [ "multi-user.target" ];
        # Ordering alone: where tailscaled is late or missing, the round is degraded and says so, and nothing fails.
        after = [
          "network.target"
          "tailscaled.service"
        ];
        before = scrapers;
        environment = {
          NO_COLOR = "1";
          # The program's own files are in the store, or are root's.
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
          # Degraded and held are states to alert on by metric: the files stand.
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
            ++ optionals (cfg.metrics.listen != null) [
              "--metrics-listen"
              cfg.metrics.listen
            ]
          );
          ExecReload = "${kill} -HUP $MAINPID";
          Restart = "on-failure";
          RestartSec = "5s";
          TimeoutStartSec = "90s";
          # A round takes up to the backends' timeouts and output.lock_wait, and the watchdog is fed between rounds.
          WatchdogSec = cfg.watchdog;
        };
      };

  # timer : cfg -> a NixOS systemd timer
  timer = cfg: {
    description = "Refresh of the Prometheus target files";
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = cfg.onCalendar;
      AccuracySec = "1s";
      # Not all of a clan's servers in the same second; the same machine always at its own.
      RandomizedDelaySec = cfg.jitter;
      FixedRandomDelay = true;
      # A round that was missed while the machine slept or was off comes at once.
      Persistent = true;
    };
  };

  # unreachable : path of ip -> a NixOS systemd service
  # Beneath every other route: while tailscaled is away, a tailnet address leads nowhere, and not to the default route.
  unreachable = ip: {
    description = "Addresses of the tailnet lead nowhere without tailscaled";
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
