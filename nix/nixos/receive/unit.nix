# The units that give a receiver the tokens of agents, and vmauth's own. Uses only `builtins`, so that a test can render
# them without nixpkgs and run them in a real systemd.
#
# systemd reads the token files as root and passes them as credentials; `clan-discovery token write` makes the config of
# nginx or vmauth from them. If the receiver refuses to reload with it, the last good one comes back.
let
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    genList
    elemAt
    length
    mapAttrs
    replaceStrings
    ;
  inherit (import ../front/unit.nix) hardening;

  user = "clan-discovery-receive";
  home = "/run/clan-discovery-receive";
  unit = "clan-discovery-receive.service";
  files = {
    nginx = "${home}/nginx.conf";
    vmauth = "${home}/vmauth.yml";
  };
  receivers = {
    nginx = "nginx.service";
    vmauth = "clan-discovery-vmauth.service";
  };

  # credentialsOf : { <machine> = [ path ]; } -> [ { name, path } ]
  # The names are those that `token write` reads: the machine, a dot and any word. No machine can have a `~` in its name:
  # `dino.1` would be for the machine `dino.1`, if there is one.
  credentialsOf =
    tokens:
    concatLists (
      attrValues (
        mapAttrs (
          machine: paths:
          genList (index: {
            name = "${machine}.token~${toString (index + 1)}";
            # Not a specifier of systemd.
            path = replaceStrings [ "%" ] [ "%%" ] (elemAt paths index);
          }) (length paths)
        ) tokens
      )
    );
in
{
  inherit user;

  # The directory of the token files, as the unit sees it.
  credentials = "/run/credentials/${unit}";
  # file : string -> path: the receiver's config.
  file = kind: files.${kind};
  # What nginx includes. It may match nothing.
  included = "${home}/*.conf";

  # The credentials of a unit have a file system of 1 MiB, where each file takes a page of 4 KiB (systemd 254, Linux 6.3).
  most = 250;
  # count : { <machine> = [ path ]; } -> int
  count = tokens: length (concatMap (machine: tokens.${machine}) (attrNames tokens));

  # script : { kind, coreutils, cmp, systemctl } -> text of a shell script, which runs one step of the units
  script =
    {
      kind,
      coreutils,
      cmp,
      systemctl,
    }:
    let
      receiver = receivers.${kind};
    in
    ''
      set -eu
      active=${files.${kind}}
      # nginx includes none of these.
      previous=${home}/previous
      refused=${home}/refused

      case $1 in
        keep)
          # The last reload was interrupted.
          if test -e "$previous"; then
            ${coreutils}/mv -T "$previous" "$active"
          fi
          if test -e "$active"; then
            ${coreutils}/ln "$active" "$previous"
          fi
          ;;
        reload)
          # A receiver that does not run reads the file when it starts.
          if test -e "$active" && ! ${cmp} -s "$active" "$previous" \
            && ${systemctl} --quiet is-active ${receiver} && ! ${systemctl} reload ${receiver}; then
            ${coreutils}/mv -T "$active" "$refused"
            if test -e "$previous"; then
              ${coreutils}/mv -T "$previous" "$active"
            fi
            echo "${receiver} does not take the new $active, and goes on without it: see its log, and $refused" >&2
            exit 1
          fi
          ${coreutils}/rm -f "$previous"
          ;;
      esac
    '';

  # service : { kind, package, config, tokens, script, systemctl, group } -> a NixOS systemd service
  # `tokens` is null where the token files are in a directory of the user's. `group` is that of nginx.
  service =
    {
      kind,
      package,
      config,
      tokens,
      script,
      systemctl,
      group,
    }:
    let
      credentials = credentialsOf (if tokens == null then { } else tokens);
    in
    {
      description = "Give ${kind} the tokens of the agents";
      documentation = [ "man:clan-discovery(1)" ];
      wantedBy = [ receivers.${kind} ];
      # So that it never answers without the tokens.
      before = [ receivers.${kind} ];
      environment = {
        NO_COLOR = "1";
        # The unit cannot write to the program's directory.
        PYTHONDONTWRITEBYTECODE = "1";
      };
      serviceConfig = {
        Type = "oneshot";
        # So that a new system starts it again if a token file was added.
        RemainAfterExit = true;
        ExecStartPre = "${script} keep";
        ExecStart = "${package}/bin/clan-discovery token write --config ${config}";
        # With a plus: as root, because it asks systemd. The reload waits for the end of this unit.
        ExecStartPost = "+${systemctl} --no-block start clan-discovery-receive-reload.service";
        TimeoutStartSec = "2min";

        LoadCredential = map (one: "${one.name}:${one.path}") credentials;
        # A file that is missing is an empty one, and must not stop the others. systemd accepts no empty value.
        SetCredential = map (one: "${one.name}:\\n") credentials;
        User = user;
        Group = user;
        RuntimeDirectory = "clan-discovery-receive";
        RuntimeDirectoryMode = "0755";
        RuntimeDirectoryPreserve = true;
        UMask = "0077";
      }
      // hardening
      // (
        if group == null then
          { }
        else
          {
            SupplementaryGroups = [ group ];
            # The file gets the group.
            SystemCallFilter = hardening.SystemCallFilter ++ [ "@chown" ];
          }
      );
    };

  # reload : string -> a NixOS systemd service; the argument is the path of the script.
  reload = script: {
    description = "Reload the receiver of the agents";
    after = [ unit ];
    startLimitIntervalSec = 0;
    serviceConfig = {
      Type = "oneshot";
      ExecStart = "${script} reload";
      TimeoutStartSec = "2min";
    };
  };

  # vmauth : { package, kill, port, internalPort, tls, group } -> a NixOS systemd service
  # `tls` is { certificate, key }. `group` may read them, or is null.
  vmauth =
    {
      package,
      kill,
      port,
      internalPort,
      tls,
      group,
    }:
    let
      config = "-auth.config=${files.vmauth}";
    in
    {
      description = "Receive what agents send";
      documentation = [ "https://docs.victoriametrics.com/victoriametrics/vmauth/" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      startLimitIntervalSec = 0;
      serviceConfig = {
        ExecStart = concatStringsSep " " [
          "${package}/bin/vmauth"
          config
          "-enableTCP6"
          "-httpListenAddr=:${toString port}"
          # Its metrics, profiles and reload, which no other machine may reach.
          "-httpInternalListenAddr=127.0.0.1:${toString internalPort}"
          "-tls"
          "-tlsCertFile=${tls.certificate}"
          "-tlsKeyFile=${tls.key}"
          "-tlsMinVersion=TLS12"
        ];
        ExecReload = [
          "${package}/bin/vmauth ${config} -dryRun"
          "${kill} -HUP $MAINPID"
        ];
        Restart = "on-failure";
        RestartSec = "5s";
        User = user;
        Group = user;
        UMask = "0077";
      }
      // removeAttrs hardening [ "PrivateNetwork" ]
      // {
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
      }
      // (if group == null then { } else { SupplementaryGroups = [ group ]; });
    };
}
