# The units of programs that nixpkgs has no module for.
{ lib, hardening }:
{
  # service : { description, command, state ? null, cache ? null } -> a NixOS systemd service
  # `state` and `cache` are directories below /var/lib and /var/cache.
  service =
    {
      description,
      command,
      state ? null,
      cache ? null,
    }:
    {
      inherit description;
      documentation = [ "https://docs.victoriametrics.com/victoriametrics/" ];
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      startLimitIntervalSec = 0;
      serviceConfig = {
        ExecStart = lib.escapeShellArgs command;
        Restart = "on-failure";
        RestartSec = "5s";
        DynamicUser = true;
        # Many small parts are open while they are merged.
        LimitNOFILE = 1048576;
        UMask = "0077";
      }
      // removeAttrs hardening [ "PrivateNetwork" ]
      // {
        RestrictAddressFamilies = [
          "AF_UNIX"
          "AF_INET"
          "AF_INET6"
        ];
        SystemCallFilter = hardening.SystemCallFilter ++ [ "mincore" ];
      }
      // lib.optionalAttrs (state != null) {
        StateDirectory = state;
        StateDirectoryMode = "0700";
      }
      // lib.optionalAttrs (cache != null) { CacheDirectory = cache; };
    };
}
