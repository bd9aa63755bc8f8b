# A machine in the role exporter: enables its exporters and opens their ports.
{ common, view }:
{
  config,
  lib,
  options,
  pkgs,
  ...
}@module:
let
  inherit (common) cd machine;
  shared = import ./common.nix { inherit lib cd; };
  context = import ./context.nix { inherit common view; } module;
  inherit (context) firewall seen;
  security = import ./security.nix context;
  internal = import ./listen.nix context;

  # The exporters of this NixOS, which may be older or newer than our list. Removed ones are still there, as options
  # without `enable`. Only the declared ones are read, because each is an evaluation.
  available =
    lib.filterAttrs (_: option: lib.isOption option && option.type.getSubOptions [ ] ? enable)
      (
        lib.intersectAttrs (lib.genAttrs (map (entry: entry.type) mine) (_: null)) (
          options.services.prometheus.exporters.type.getSubOptions [ ]
        )
      );

  members = seen.on seen.exporters;
  mine = seen.entriesOf members;
  # Its exporters are read on loopback: no other machine reaches them.
  isAgent = seen.isAgent machine;
  # The others are refused.
  ported = lib.filter (entry: entry.port != null && entry.port != 0) mine;
  reachable = lib.filter (entry: !isAgent && !entry.exporter.loopback) ported;
  # The services that the machine exposes: one entry for each port with metrics.
  exposed = lib.concatMap (
    member:
    let
      expose = member.settings.expose or { };
      onPort = lib.groupBy (one: toString one.port) (cd.exposed.portsOf expose);
    in
    lib.mapAttrsToList (
      _: ports:
      member
      // {
        inherit (lib.head ports) port;
        type = lib.concatMapStringsSep " and " (one: cd.exposed.typeOf one.name expose.${one.name}) ports;
        where = "${member.where}.expose.${(lib.head ports).name}";
      }
    ) onPort
  ) members;
  open = reachable ++ lib.optionals (!isAgent) exposed;
  # Services (caddy, grafana) and types of the user have no NixOS exporter.
  ofNixos = lib.filter (entry: available ? ${entry.type}) ported;
  others = lib.filter (entry: !(available ? ${entry.type})) ported;
  said = lib.filterAttrs (_: value: value != null && value != [ ] && value != { });

  inherit (shared) misnamed;
  collectors =
    entry:
    lib.optionals (entry.type == "node") (
      lib.filter (name: misnamed ? ${name}) (entry.exporter.options.enabledCollectors or [ ])
    );

  definition =
    entry:
    let
      wanted = entry.exporter.options;
      known = available.${entry.type}.type.getSubOptions [ ];
      # The role declares these lists for every type. An empty one is not set: it would replace an exporter's own default.
      declared = [
        "disabledCollectors"
        "enabledCollectors"
        "extraFlags"
      ];
      told = lib.filterAttrs (
        name: value: if lib.elem name declared then value != [ ] else known ? ${name} || value != null
      ) wanted;
      renamed =
        told
        // lib.optionalAttrs (told ? enabledCollectors && entry.type == "node") {
          enabledCollectors = map (name: misnamed.${name} or name) told.enabledCollectors;
        };
    in
    {
      ${entry.type} = {
        enable = lib.mkDefault true;
        # If two instances differ, an assertion below says so.
        port = lib.mkIf (entry.port == (lib.head ofType.${entry.type}).port) (lib.mkDefault entry.port);
      }
      // (
        if isAgent then
          lib.optionalAttrs (known ? listenAddress) { listenAddress = lib.mkDefault "127.0.0.1"; }
        else
          internal.optionsOf entry.settings
      )
      // shared.handed known renamed;
    };

  # The server of this machine has a port, too, and its listeners have some.
  serving = lib.concatMap (
    member:
    [
      {
        inherit (member) instance;
        type = "the server";
        port = cd.service.serverPort member.settings;
      }
    ]
    ++ lib.concatLists (
      lib.mapAttrsToList (
        address: type:
        lib.optional (cd.splitAddress address != null) {
          inherit (member) instance;
          inherit type;
          inherit (cd.splitAddress address) port;
        }
      ) listeners
    )
  ) (seen.on seen.servers);
  # The listener of `web` may be that of the metrics.
  listeners = {
    ${toString discovery.metrics.listen} = "services.clan-discovery.metrics.listen";
  }
  // lib.optionalAttrs (discovery.settings.web != null) {
    ${discovery.settings.web.listen} = "services.clan-discovery.settings.web.listen";
  };
  discovery = config.services.clan-discovery;
  agent = lib.optionals isAgent (
    lib.concatMap (
      member:
      [
        {
          inherit (member) instance;
          type = "the agent";
          port = 8429;
        }
      ]
      ++ lib.optional (discovery.agent.logs.enable && discovery.agent.logs.backend == "victorialogs") {
        inherit (member) instance;
        type = "the agent's logs";
        port = 9429;
      }
    ) (lib.take 1 (seen.on seen.agents))
  );
  onPort = lib.groupBy (entry: toString entry.port) (ported ++ exposed ++ serving ++ agent);
  # The same exporter from two instances counts once.
  clashing = lib.filterAttrs (
    _: entries: lib.length (lib.unique (map (entry: entry.type) entries)) > 1
  ) onPort;
  ofType = lib.groupBy (entry: entry.type) ported;
  torn = lib.filterAttrs (
    type: entries: ofNixosType type && lib.length (lib.unique (map (entry: entry.port) entries)) > 1
  ) ofType;
  ofNixosType = type: lib.any (entry: entry.type == type) ofNixos;
  told =
    entries: lib.concatMapStringsSep " and " (entry: "${entry.type} (${entry.instance})") entries;

  unscraped = import ./unscraped.nix (context // { inherit isAgent; });
  limits = import ../nixos/limits.nix { inherit lib cd; };
  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf;
  refusedOf =
    member:
    map (what: refuse "${member.where}: ${what}") (cd.service.complaintsOf member.settings)
    ++ map (what: refuse "${member.where}: ${what}") (limits.roleComplaintsOf seen member.settings)
    ++ map (what: refuse "${member.where}.listen: ${what}") (
      lib.optionals (!isAgent) (internal.complaintsOf member.settings)
    );
  # Settings that no module reads: the type is a program of the user, or a typo.
  refusedOfOther =
    entry:
    let
      unread = lib.attrNames (said entry.exporter.options);
      option = "services.prometheus.exporters.${entry.type}";
    in
    if entry.exporter.nixos then
      [ (refuse "${entry.where}: this NixOS has no ${option}") ]
    else
      refuseIf (unread != [ ])
        "${entry.where}: ${lib.concatStringsSep ", " unread} would be settings of ${option}, which this NixOS does not have: remove them";
in
{
  imports = [
    { config = lib.mkIf (mine != [ ] && !isAgent) (security.exporter ofNixos); }
    # A server without exporters has ports, too.
    {
      assertions = lib.mapAttrsToList (
        port: entries:
        refuse "${machine}: port ${port} is used by ${told entries}: set another `port` for one of them"
      ) clashing;
    }
  ];

  config = lib.mkIf (members != [ ]) {
    services.prometheus.exporters = lib.mkMerge (map definition ofNixos);
    networking.firewall.interfaces = firewall.opened open;
    systemd.services = lib.mkIf (!isAgent) (internal.unitsOf ofNixos);

    warnings =
      shared.unread members
      ++ shared.doubts members
      ++ lib.concatMap (
        entry:
        map (
          name:
          "clan-discovery: ${entry.where}.enabledCollectors: node exporter has no collector ${name}: write ${misnamed.${name}}, which is enabled by default"
        ) (collectors entry)
        ++ (unscraped.exporter entry).warnings
      ) ofNixos;

    assertions = lib.unique (
      lib.concatMap refusedOf members
      ++ lib.concatMap unscraped.port (lib.filter (entry: !(torn ? ${entry.type})) ofNixos)
      ++ lib.concatMap (entry: (unscraped.exporter entry).assertions) ofNixos
      ++ lib.concatMap refusedOfOther others
      ++ lib.mapAttrsToList (
        type: entries:
        refuse "${machine}: ${type} has ${
          lib.concatMapStringsSep " and " (
            entry: "port ${toString entry.port} in instance ${entry.instance}"
          ) entries
        }: NixOS has one exporter of each type: set the same port, or remove one"
      ) torn
      ++ map refuse (seen.emptyRoles "server" ++ seen.unknownServers)
      ++ firewall.assertions "exporter" open
    );
  };
}
