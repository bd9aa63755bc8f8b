# The units that give a reverse proxy the file of fronts. Uses only `builtins`, so that a test can render it without
# nixpkgs and run it in a real systemd.
#
# clan-discovery writes the file; the proxy reads a copy of it. If the proxy refuses to reload with a new copy, the last
# good one comes back, so that the proxy can also restart.
let
  home = "/var/lib/clan-discovery-front";

  # The end of the file's name, by which the proxy includes it.
  suffixes = {
    caddy = "caddy";
    nginx = "conf";
    traefik = "yml";
  };

  hardening = {
    CapabilityBoundingSet = "";
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    NoNewPrivileges = true;
    PrivateDevices = true;
    PrivateNetwork = true;
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
    RestrictAddressFamilies = [ "AF_UNIX" ];
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    SystemCallArchitectures = "native";
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
    ];
  };
in
rec {
  inherit hardening home;

  # name : string -> string
  name = kind: "clan.${suffixes.${kind}}";
  # source, copy : string -> path: what clan-discovery writes, and what the proxy reads.
  source = kind: "/var/lib/clan-discovery/front/${name kind}";
  copy = kind: "${home}/${name kind}";
  # included : path -> string -> glob: may match nothing.
  included = directory: kind: "${directory}/*.${suffixes.${kind}}";

  # script : { kind, coreutils, cmp, systemctl } -> text of a shell script, which runs one step of the unit
  script =
    {
      kind,
      coreutils,
      cmp,
      systemctl,
    }:
    ''
      set -eu
      new=${source kind}
      active=${copy kind}
      # The proxy includes none of these.
      next=${home}/next
      previous=${home}/previous
      refused=${home}/refused

      is_new() {
        test -f "$new" && ! ${cmp} -s "$new" "$active"
      }
      # A proxy that does not run gets the file when it starts.
      is_running() {
        ${systemctl} --quiet is-active ${kind}.service
      }

      case $1 in
        take)
          ${coreutils}/rm -f "$next" "$refused"
          if is_new; then
            ${coreutils}/cp "$new" "$next"
          fi
          ;;
        reload)
          # The last reload was interrupted.
          if test -e "$previous"; then
            ${coreutils}/mv -T "$previous" "$active"
          fi
          if test -e "$next" && is_running; then
            if test -e "$active"; then
              ${coreutils}/ln "$active" "$previous"
            fi
            ${coreutils}/mv -T "$next" "$active"
            # The proxy checks its whole configuration before it uses the file.
            if ! ${systemctl} reload ${kind}.service; then
              ${coreutils}/mv -T "$active" "$refused"
              if test -e "$previous"; then
                ${coreutils}/mv -T "$previous" "$active"
              fi
            fi
            ${coreutils}/rm -f "$previous"
          fi
          ;;
        again)
          # While this unit runs, a change does not start it again.
          if is_new && is_running && ! ${cmp} -s "$new" "$refused"; then
            ${systemctl} --no-block start clan-discovery-front.service
          fi
          ;;
        report)
          if test -e "$refused"; then
            echo "${kind} does not take $new, and goes on without this version: see the log of ${kind}.service" >&2
            exit 1
          fi
          ;;
      esac
    '';

  # service : { kind, script } -> a NixOS systemd service; `script` is the path of the script.
  service =
    { kind, script }:
    {
      description = "Give ${kind} the fronts of clan-discovery";
      documentation = [ "man:clan-discovery(1)" ];
      # The proxy may start after the file has changed. After the other unit, so that systemd watches the file again.
      wantedBy = [ "${kind}.service" ];
      after = [
        "${kind}.service"
        "clan-discovery-front-changed.service"
      ];
      # Each change is one start.
      startLimitIntervalSec = 0;
      serviceConfig = {
        # While a oneshot unit stops, a start is merged into its own.
        Type = "exec";
        ExecStartPre = "${script} take";
        # With a plus: as root, because it asks systemd.
        ExecStart = "+${script} reload";
        ExecStopPost = [
          "+${script} again"
          "${script} report"
        ];
        RuntimeMaxSec = "2min";

        User = "clan-discovery";
        Group = "clan-discovery";
        StateDirectory = "clan-discovery-front";
        StateDirectoryMode = "0755";
        UMask = "0022";
      }
      // hardening;
    };

  # changed : string -> a NixOS systemd service; the argument is the path of systemctl.
  # While the unit of a path unit runs, systemd does not watch the path. So this one only starts the other.
  changed = systemctl: {
    description = "Note a change of the fronts of clan-discovery";
    startLimitIntervalSec = 0;
    serviceConfig = {
      Type = "oneshot";
      ExecStart = "${systemctl} --no-block start clan-discovery-front.service";
    };
  };

  # path : string -> a NixOS systemd path
  path = kind: {
    description = "Watch the fronts of clan-discovery";
    wantedBy = [ "multi-user.target" ];
    pathConfig = {
      PathChanged = source kind;
      Unit = "clan-discovery-front-changed.service";
    };
  };
}
