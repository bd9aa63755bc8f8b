# A darwin machine: nix-darwin's node exporter. It has no other exporter of NixOS, which is a warning, and no server, which
# is an assertion.
{ common, view }:
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (common) cd machine;
  shared = import ./common.nix { inherit lib cd; };
  seen = view.of common options config;

  mine = seen.entriesOf (seen.on seen.exporters);
  ofType = lib.partition (entry: entry.type == "node") mine;
  nodes = ofType.right;
  others = lib.filter (entry: entry.exporter.nixos) ofType.wrong;
  # The user may run them without nix-darwin.
  included = lib.any (member: member.settings.policy.darwin or null == "include") seen.servers;

  # Options that nix-darwin removed are hidden.
  known = lib.filterAttrs (
    _: option: option.visible or true
  ) options.services.prometheus.exporters.node;

  # node exporter 1.12, collector/: those that macOS has. With the flag of another one it does not start.
  collectors = [
    "boottime"
    "buddyinfo"
    "cpu"
    "diskstats"
    "filesystem"
    "loadavg"
    "meminfo"
    "netdev"
    "ntp"
    "os"
    "powersupplyclass"
    "runit"
    "supervisord"
    "textfile"
    "thermal"
    "time"
    "uname"
    "xfrm"
  ];
  collectorOf =
    flag:
    let
      found = builtins.match "--(no-)?collector\\.([a-z0-9_]+)([.=].*)?" flag;
    in
    if found == null then null else lib.elemAt found 1;
  isOnDarwin = collector: collector == null || lib.elem collector collectors;

  # of : entry -> { settings, omitted }: the settings that macOS and nix-darwin have, and the names of the others.
  of =
    entry:
    let
      wanted = lib.filterAttrs (
        _: value: value != null && value != [ ] && value != { }
      ) entry.exporter.options;
      split =
        name: collectorIn:
        lib.partition (value: isOnDarwin (collectorIn value)) (
          map (value: shared.misnamed.${value} or value) (wanted.${name} or [ ])
        );
      lists = {
        enabledCollectors = split "enabledCollectors" lib.id;
        disabledCollectors = split "disabledCollectors" lib.id;
        extraFlags = split "extraFlags" collectorOf;
      };
    in
    {
      settings = lib.intersectAttrs known wanted // lib.mapAttrs (_: list: list.right) lists;
      omitted =
        lib.attrNames (removeAttrs wanted (lib.attrNames known))
        ++ lib.concatMap (list: list.wrong) (lib.attrValues lists);
    };

  unscraped = import ./unscraped.nix {
    inherit
      lib
      cd
      machine
      config
      ;
  };
  inherit (import ./messages.nix { inherit lib; }) refuse;
in
{
  services.prometheus.exporters = lib.mkIf (nodes != [ ]) {
    node = lib.mkMerge (
      [
        {
          enable = lib.mkDefault true;
          port = lib.mkDefault (lib.head nodes).port;
        }
      ]
      ++ map (entry: shared.handed known (of entry).settings) nodes
    );
  };

  warnings =
    shared.unread (seen.on seen.exporters)
    ++ shared.doubts (seen.on seen.exporters)
    ++ map (
      entry:
      "clan-discovery: ${entry.where}: nix-darwin has no exporter ${entry.type}, so it is no target: set `exporters.${entry.type}.enable = false`, or give the role the tag `nixos` instead of `all`"
    ) (lib.optionals (!included) others)
    ++ lib.concatMap (
      entry:
      lib.optional ((of entry).omitted != [ ])
        "clan-discovery: ${entry.where}: node exporter on macOS has no ${lib.concatStringsSep ", " (of entry).omitted}, which is omitted: set it for the tag `nixos` only"
      ++
        lib.optional (entry.settings.listen or null != null && !(entry.exporter.options ? listenAddress))
          "clan-discovery: ${entry.where}.listen: nix-darwin has no internalListenAddresses, so node exporter listens on every address of ${machine}: set its `listenAddress`"
    ) nodes
    ++ lib.concatMap (entry: (unscraped.exporter entry).warnings) nodes;

  assertions =
    map (
      member:
      refuse "instances.${member.instance}.roles.server has the darwin machine ${machine}, which cannot run a server: give the role the tag `nixos` instead of `all`"
    ) (seen.on seen.servers)
    ++ map (
      member:
      refuse "instances.${member.instance}.roles.agent has the darwin machine ${machine}, which has no systemd to run the agent: give the role the tag `nixos` instead of `all`"
    ) (seen.on seen.agents)
    ++ map (
      member:
      refuse "instances.${member.instance}.roles.front has the darwin machine ${machine}, which cannot run a proxy: give the role to a NixOS machine"
    ) (seen.on seen.fronts)
    ++ lib.concatLists (
      lib.mapAttrsToList
        (
          role: members:
          map (
            member:
            refuse "instances.${member.instance}.roles.${role} has the darwin machine ${machine}, which cannot run the service: give the role to a NixOS machine"
          ) (seen.on members)
        )
        {
          inherit (seen) alerting dashboards storage;
          logs = seen.stores;
        }
    )
    ++ lib.concatMap (
      member: map (what: refuse "${member.where}: ${what}") (cd.service.complaintsOf member.settings)
    ) (seen.on seen.exporters)
    ++ lib.concatMap (entry: (unscraped.exporter entry).assertions ++ unscraped.port entry) nodes
    ++ map (entry: refuse (shared.plainOnDarwin entry)) (
      lib.filter (entry: entry.exporter.security != "none") nodes
    );
}
