# The units of an agent: vmagent, vlagent, and what keeps the cursor of systemd-journal-upload safe. Uses only `builtins`,
# so that a test can render them without nixpkgs and run them in a real systemd.
#
# vlagent answers systemd-journal-upload before the entries are on disk or at the receiver. If it ends uncleanly (power
# cut, killed), its queue is discarded, and the journal is sent again from a cursor whose entries had all been delivered.
let
  inherit (builtins) concatStringsSep map replaceStrings;

  names = {
    agent = "clan-discovery-agent";
    logs = "clan-discovery-logs";
    cursor = "clan-discovery-cursor";
    upload = "systemd-journal-upload";
  };

  longest = 8388608;

  ports = {
    agent = 8429;
    logs = 9429;
  };
  urlOf = port: "http://127.0.0.1:${toString port}";

  hardening = {
    DynamicUser = true;
    UMask = "0077";

    AmbientCapabilities = "";
    CapabilityBoundingSet = "";
    DevicePolicy = "closed";
    KeyringMode = "private";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NoNewPrivileges = true;
    PrivateDevices = true;
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
    RestrictAddressFamilies = [
      "AF_UNIX"
      "AF_INET"
      "AF_INET6"
    ];
    RestrictNamespaces = true;
    RestrictRealtime = true;
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
      "~@resources"
    ];
    InaccessiblePaths = [
      "-/run/dbus"
      "-/run/docker.sock"
      "-/run/podman"
      "-/run/user"
    ];
  };

  # credential : string -> path -> an entry of LoadCredential=; a percent sign is not a specifier of systemd.
  credential = name: path: "${name}:${replaceStrings [ "%" ] [ "%%" ] path}";

  # What vmagent and vlagent have in common: one queue, so that blocks leave in their order.
  remoteWrite =
    {
      urls,
      path,
      caFile,
      maxDiskUsage,
      unit,
    }:
    map (url: "-remoteWrite.url=${url}${path}") urls
    ++ [
      "-remoteWrite.bearerTokenFile=%d/token"
      "-remoteWrite.tmpDataPath=%S/${unit}/queue"
      "-remoteWrite.maxDiskUsagePerURL=${maxDiskUsage}"
      "-remoteWrite.queues=1"
      # A receiver that is back gets everything within half a minute. The default of both is a minute. The first one ends
      # a request that hangs because the network has changed.
      "-remoteWrite.sendTimeout=20s"
      # A slow uplink must be able to send a block in that time; the default is 8 MiB before compression.
      "-remoteWrite.maxBlockSize=1MiB"
      "-remoteWrite.retryMaxTime=5s"
      "-enableTCP6"
    ]
    ++ (if caFile == null then [ ] else [ "-remoteWrite.tlsCAFile=${caFile}" ]);

  common = name: {
    wantedBy = [ "multi-user.target" ];
    after = [ "network.target" ];
    # A machine may be offline for weeks.
    startLimitIntervalSec = 0;
    serviceConfig = hardening // {
      Restart = "always";
      RestartSec = "5s";
      StateDirectory = name;
      StateDirectoryMode = "0700";
    };
  };
in
{
  inherit credential names ports;

  # journald : URL to which systemd-journal-upload sends; it appends `/upload`.
  journal = "${urlOf ports.logs}/insert/journald";

  # agent : { vmagent, config, urls, tokenFile, caFile, maxDiskUsage } -> a NixOS systemd service
  # `config` is the path of the scrape config.
  agent =
    {
      vmagent,
      config,
      urls,
      tokenFile,
      caFile ? null,
      maxDiskUsage,
    }:
    let
      base = common names.agent;
    in
    base
    // {
      description = "Scrape this machine and send its metrics";
      documentation = [ "https://docs.victoriametrics.com/vmagent/" ];
      serviceConfig = base.serviceConfig // {
        LoadCredential = [ (credential "token" tokenFile) ];
        ExecStart = concatStringsSep " " (
          [
            vmagent
            "-promscrape.config=${config}"
            "-httpListenAddr=127.0.0.1:${toString ports.agent}"
            # It takes no samples: every local user, and pages in a browser of this machine, can send requests here.
            "-maxConcurrentInserts=0"
            "-insert.maxQueueDuration=1ms"
          ]
          ++ remoteWrite {
            inherit urls caFile maxDiskUsage;
            path = "/api/v1/write";
            unit = names.agent;
          }
        );
      };
    };

  # logs : { vlagent, script, urls, tokenFile, caFile, maxDiskUsage } -> a NixOS systemd service
  # `script` is the command of `script` below.
  logs =
    {
      vlagent,
      script,
      urls,
      tokenFile,
      caFile ? null,
      maxDiskUsage,
    }:
    let
      base = common names.logs;
    in
    base
    // {
      description = "Queue the journal's entries and send them";
      documentation = [ "https://docs.victoriametrics.com/victorialogs/vlagent/" ];
      serviceConfig = base.serviceConfig // {
        LoadCredential = [ (credential "token" tokenFile) ];
        # With a plus: as root.
        ExecStartPre = "+${script} started";
        ExecStart = concatStringsSep " " (
          [
            vlagent
            "-httpListenAddr=127.0.0.1:${toString ports.logs}"
            "-tmpDataPath=%S/${names.logs}"
            # `__CURSOR` tells an entry that was sent twice. vlagent omits the time that it has read in jsonline, so it
            # must not read the entry's: the receiver does (VL-Time-Field: __REALTIME_TIMESTAMP).
            "-journald.includeEntryMetadata"
            "-journald.timeField=__NONE"
            # A longer line inside a field is refused with the whole request. VictoriaLogs stores no entry of 2 MB.
            "-insert.maxLineSizeBytes=${toString longest}"
            "-remoteWrite.format=jsonline"
          ]
          ++ remoteWrite {
            inherit urls caFile maxDiskUsage;
            path = "/insert/jsonline";
            unit = names.logs;
          }
        );
        ExecStopPost = "+${script} stopped";
      };
    };

  # upload : string -> what is added to systemd-journal-upload.service
  upload = script: {
    # It restarts with vlagent, and reads its cursor only when it starts.
    requires = [ "${names.logs}.service" ];
    after = [ "${names.logs}.service" ];
    startLimitIntervalSec = 0;
    serviceConfig = {
      Restart = "always";
      # As nixpkgs sets it.
      RestartSec = "3sec";
      ExecStartPre = [
        "${script} writable"
        "${script} rewind"
        "+${script} rewound"
      ];
      ExecStopPost = "${script} skip";
    };
  };

  # cursor : string -> a NixOS systemd service, which notes the cursor
  cursor = script: {
    description = "Note how far the journal has been delivered";
    requisite = [ "${names.logs}.service" ];
    after = [ "${names.logs}.service" ];
    serviceConfig = {
      Type = "oneshot";
      ExecStart = "${script} note";
      TimeoutStartSec = "30s";
      # Else each run would be a few lines in the journal.
      LogLevelMax = "notice";

      # As root: the state of systemd-journal-upload is in /var/lib/private.
      CapabilityBoundingSet = "CAP_DAC_READ_SEARCH";
      DevicePolicy = "closed";
      IPAddressAllow = "localhost";
      IPAddressDeny = "any";
      LockPersonality = true;
      MemoryDenyWriteExecute = true;
      NoNewPrivileges = true;
      PrivateDevices = true;
      PrivateTmp = true;
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
      ReadWritePaths = [ "/var/lib/${names.cursor}" ];
      RestrictAddressFamilies = [
        "AF_UNIX"
        "AF_INET"
      ];
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      SystemCallArchitectures = "native";
      SystemCallFilter = [
        "@system-service"
        "~@privileged"
      ];
    };
  };

  # timer : a NixOS systemd timer
  timer = {
    description = "Note how far the journal has been delivered";
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnActiveSec = "1min";
      OnUnitInactiveSec = "1min";
      AccuracySec = "10s";
    };
  };

  # script : { coreutils, grep, cmp, curl, journalctl } -> text of a shell script, which runs one step of the units
  #
  # An attempt to send ends or fails within 20 seconds, and the next one follows within 6 seconds. So if nothing
  # is pending and no attempt failed for three minutes, the entries before the oldest of three notes were delivered.
  script =
    {
      coreutils,
      grep,
      cmp,
      curl,
      journalctl,
    }:
    ''
      set -eu
      queue=/var/lib/${names.logs}/queue
      state=/var/lib/systemd/journal-upload/state
      # Only root writes here.
      home=/var/lib/${names.cursor}

      saved() {
        ${coreutils}/sync "$home"
      }
      # Only the cursor is copied, whatever else is in a file: it may be another user's.
      put() {
        printf 'LAST_CURSOR=%s\n' "$1" > "$2.new"
        ${coreutils}/sync "$2.new"
        ${coreutils}/mv -T "$2.new" "$2"
      }
      forget() {
        ${coreutils}/rm -f "$home/note.0" "$home/note.1" "$home/note.2"
      }
      cursor_in() {
        if test -e "$1"; then
          ${grep} -oP '^LAST_CURSOR=\K.+' "$1" || true
        fi
      }
      is_large() {
        size=$(${journalctl} --quiet --output=export --lines=1 --cursor="$1" | ${coreutils}/wc -c)
        test "$size" -gt ${toString longest}
      }
      # Whether the journal still has every entry since the delivered ones.
      has_journal() {
        last=$(cursor_in "$home/delivered")
        test -n "$last" || return 0
        first=$(${journalctl} --quiet --output=export --lines=1 --cursor="$last" | ${coreutils}/head -n 1)
        test "$first" = "__CURSOR=$last"
      }

      case $1 in
        started)
          ${coreutils}/mkdir -p -m 0755 "$home"
          if test -e "$queue" && ! test -e "$home/clean"; then
            echo "vlagent did not end cleanly: the journal is sent again from the last entry that is known to be delivered" >&2
            : > "$home/rewind"
            saved
            if has_journal; then
              ${coreutils}/rm -rf "$queue"
            fi
          fi
          ${coreutils}/rm -f "$home/clean"
          saved
          ;;
        stopped)
          if test "''${SERVICE_RESULT:-}" = success && ! test -e "$home/rewind"; then
            ${coreutils}/sync -f "$home"
            : > "$home/clean"
            saved
          fi
          ;;
        writable)
          # Without a saved cursor, the same entries would be sent at each start.
          printf %4096s > "$state.test"
          ${coreutils}/sync "$state.test"
          ${coreutils}/rm -f "$state.test"
          ;;
        rewind)
          if test -e "$home/rewind"; then
            if test -e "$home/delivered"; then
              put "$(cursor_in "$home/delivered")" "$state"
            else
              ${coreutils}/rm -f "$state"
            fi
          fi
          ;;
        rewound)
          ${coreutils}/rm -f "$home/rewind"
          saved
          ;;
        skip)
          # vlagent has accepted the entries before the one that it cannot read.
          test "''${SERVICE_RESULT:-}" = exit-code || exit 0
          for _ in 1 2 3 4 5 6 7 8 9 10; do
            # Its last words may be late.
            said=$(${journalctl} --quiet --output=cat "_SYSTEMD_INVOCATION_ID=$INVOCATION_ID" |
              ${grep} -a '^Upload to .* failed' || true)
            test -z "$said" || break
            ${coreutils}/sleep 1
          done
          printf '%s\n' "$said" | ${grep} -q 'failed with code 400' || exit 0
          last=$(cursor_in "$state")
          # Some versions of systemd begin with the entry of the cursor, not with the next one.
          if test -n "$last" && is_large "$last"; then
            put "$(${journalctl} --quiet --output=export --lines=1 --after-cursor="$last" |
              ${grep} -a -m 1 -oP '^__CURSOR=\K.+')" "$state"
            exit 0
          fi
          # journalctl writes no large field as JSON.
          ${journalctl} --quiet --output=json ''${last:+"--after-cursor=$last"} | ${grep} -E ': ?null' |
            ${grep} -oP '"__CURSOR" ?: ?"\K[^"]+' | while read -r one; do
              if is_large "$one"; then
                echo "skipped an entry that is too large to be stored: journalctl --cursor='$one' --lines=1" >&2
                put "$one" "$state"
                break
              fi
            done
          ;;
        note)
          found=$(${curl} --silent --fail --noproxy '*' --max-time 10 ${urlOf ports.logs}/metrics |
            ${grep} -E '^(process_start_time_seconds|vlagent_remotewrite_(errors|requests|packets_dropped)_total|vlagent_remotewrite_pending_[a-z_]+)[ {]' |
            ${grep} -v 'status_code="2XX"')
          printf '%s\n' "$found" > "$home/seen.new"
          if ! ${cmp} -s "$home/seen.new" "$home/seen"; then
            forget
          fi
          ${coreutils}/mv -T "$home/seen.new" "$home/seen"
          last=$(cursor_in "$state")
          if test -z "$last" || ${grep} -E '^vlagent_remotewrite_pending' "$home/seen" | ${grep} -qv ' 0$'; then
            forget
            exit 0
          fi
          if test -e "$home/note.2"; then
            ${coreutils}/mv -T "$home/note.2" "$home/delivered"
          fi
          for n in 1 0; do
            if test -e "$home/note.$n"; then
              ${coreutils}/mv -T "$home/note.$n" "$home/note.$((n + 1))"
            fi
          done
          put "$last" "$home/note.0"
          saved
          ;;
      esac
    '';
}
