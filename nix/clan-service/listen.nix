# `listen = "internal"`: the exporters listen on the machine's address in the clan's internal network only.
{
  config,
  lib,
  machine,
  networks,
  ...
}:
let
  option = "clan.core.networking.internalListenAddresses";
  # An address that is not generated yet is empty.
  internal = lib.remove "" (
    map lib.trim (config.clan.core.networking.internalListenAddresses or [ ])
  );
  isInternal = settings: settings.listen == "internal";

  # The address at which the servers scrape: they must find the exporter there.
  address = if others == [ ] then networks.own.host or null else null;
  others = lib.remove "exports" networks.sources;
  usable = lib.elem address internal;
in
{
  # optionsOf : settings -> options of an exporter. Most exporters take `host:port`, so IPv6 is in brackets.
  optionsOf =
    settings:
    lib.optionalAttrs (isInternal settings && usable) {
      listenAddress = lib.mkDefault (if lib.hasInfix ":" address then "[${address}]" else address);
    };

  # unitsOf : [ { settings, type } ] -> systemd.services: the network may get its address long after the start.
  unitsOf =
    entries:
    lib.listToAttrs (
      map (
        entry:
        lib.nameValuePair "prometheus-${entry.type}-exporter" {
          startLimitIntervalSec = lib.mkDefault 0;
          serviceConfig.RestartSec = lib.mkDefault "5s";
        }
      ) (lib.filter (entry: isInternal entry.settings && usable) entries)
    );

  # complaintsOf : settings -> [ string ]
  complaintsOf =
    settings:
    lib.optional (isInternal settings && !usable) (
      if others != [ ] then
        "the address of ${machine} comes from ${lib.concatStringsSep " and " others}, not from a network that the clan exports: remove `listen`"
      else if internal == [ ] then
        "${option} is empty on ${machine}: add the machine to a network that fills it, for example yggdrasil, or remove `listen`"
      else
        "the servers scrape ${machine} at ${
          if address == null then "an address that is not known here" else address
        }, which is not in ${option} (${lib.concatStringsSep ", " internal}): remove `listen`"
    );
}
