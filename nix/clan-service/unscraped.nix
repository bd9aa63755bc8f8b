# Members that no server can scrape: switched off, or listening on loopback only. The settings may say so, which is a
# warning. The machine's own configuration must not, because no server sees it.
{
  lib,
  cd,
  machine,
  config,
  # The machine is an agent, which reads its exporters on loopback.
  isAgent ? false,
  ...
}:
let
  inherit (cd.service) isLoopback;
  isEverywhere =
    address:
    lib.elem address [
      null
      ""
      "0.0.0.0"
      "::"
      "[::]"
    ];
  inherit (import ./messages.nix { inherit lib; }) refuseIf warnIf;
  # Beside `exporters`, settings of an exporter are not read.
  placeOf =
    entry:
    "${entry.where}${
      lib.optionalString (entry.settings.exporters ? ${entry.type}) ".exporters.${entry.type}"
    }";
in
{
  # port : entry -> [ assertion ]: the machine's own configuration has another port than the settings.
  port =
    entry:
    let
      option = "services.prometheus.exporters.${entry.type}";
      exporter = config.services.prometheus.exporters.${entry.type};
    in
    refuseIf (exporter.port != entry.port)
      "${option}.port is ${toString exporter.port} on ${machine}, but the ${
        if isAgent then "agent" else "server"
      } scrapes port ${toString entry.port}: set `port` in ${placeOf entry}";

  # exporter : entry -> { warnings; assertions }: an exporter that this NixOS or nix-darwin has.
  exporter =
    entry:
    let
      inherit (entry) type;
      option = "services.prometheus.exporters.${type}";
      exporter = config.services.prometheus.exporters.${type};
      address = exporter.listenAddress or null;
      where = placeOf entry;
    in
    {
      warnings =
        warnIf (!isAgent && entry.exporter.loopback)
          "${where}.listenAddress: ${type} listens on ${entry.exporter.options.listenAddress}, where no other machine can scrape it, and is no target: set another address, or enable it in ${option} of the machine instead";
      assertions =
        refuseIf (!exporter.enable)
          "${option}.enable is false on ${machine}, but the ${
            if isAgent then "agent" else "server"
          } scrapes it: set `enable = false` in ${where}"
        ++
          refuseIf (isAgent && !isLoopback address && !isEverywhere address)
            "${option}.listenAddress is ${address} on ${machine}, where its agent does not read it: set 127.0.0.1"
        ++
          refuseIf (!isAgent && !entry.exporter.loopback && isLoopback address)
            "${option}.listenAddress is ${address} on ${machine}, where no server can scrape it: set another address, or set `listenAddress` in ${where} as well";
    };

  # server : member -> { name; enabled; address; } -> { warnings; assertions }: the service of its backend.
  server =
    entry: service:
    let
      said = entry.settings;
      isTarget = cd.service.scrapesServers said;
      isOwn = cd.service.scrapesServers (removeAttrs said [ "listenAddress" ]);
    in
    {
      warnings =
        warnIf (isOwn && !isTarget)
          "${entry.where}.listenAddress: the server listens on ${said.listenAddress}, where no other machine can scrape it, and is no target: set `scrapeServers = false`, or another address";
      assertions =
        refuseIf (!service.enabled)
          "${service.name}.enable is false on ${machine}, which has the role server in instance ${entry.instance}: set `enable = false` in ${entry.where}, or set another `backend`"
        ++
          refuseIf (isTarget && isLoopback service.address)
            "${service.name}.listenAddress is ${service.address} on ${machine}, where no other server can scrape it: set `listenAddress` or `scrapeServers = false` in ${entry.where}";
    };
}
