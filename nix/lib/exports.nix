# The exports of overlay networks, reduced to what discovery reads. Keys are `SERVICE:INSTANCE:ROLE:MACHINE` (clan-core,
# lib/exports). clan-discovery chooses the address (`inventory/clan/exports.py`).
let
  inherit (builtins)
    attrNames
    concatMap
    deepSeq
    elem
    elemAt
    filter
    groupBy
    head
    intersectAttrs
    listToAttrs
    map
    mapAttrs
    match
    sort
    tryEval
    ;

  # A value that is not generated yet must not fail the others.
  safe =
    value:
    let
      tried = tryEval (deepSeq value value);
    in
    if tried.success then tried.value else null;

  # Only `plain` hosts: a host by `var` contains the flake's store path, which changes at every commit.
  peerOf =
    peer:
    let
      hosts = if peer == null then [ ] else filter (host: host ? plain) (peer.hosts or [ ]);
    in
    if hosts == [ ] then { } else { peer.hosts = map (host: { inherit (host) plain; }) hosts; };

  networkOf =
    network:
    if network == null then
      { }
    else
      {
        networking = intersectAttrs {
          module = null;
          priority = null;
        } network;
      };

  reducedOne =
    scope: peerOf (safe (scope.peer or null)) // networkOf (safe (scope.networking or null));

  # Of no use to a scraper, as in `inventory/clan/exports.py`: they need a proxy, or have public addresses.
  proxied = [
    "clan_lib.network.tor"
    "clan_lib.network.p2p_ssh_iroh"
  ];
  public = "internet";

  # parsedOf : string -> [ { scope, service, instance, network, machine } ]: one, or none if it is no key.
  # `service` is without its owner.
  parsedOf =
    scope:
    let
      parts = match "(([^:]*/)?([^:/]*)):([^:]*):[^:]*:([^:]*)" scope;
      part = elemAt parts;
    in
    if parts == null then
      [ ]
    else
      [
        {
          inherit scope;
          service = part 2;
          instance = part 3;
          network = "${part 0}:${part 3}";
          machine = part 4;
        }
      ];

  # offersOf : exports -> parsed -> [ parsed // { priority, host } ]: one, or none without a host for a scraper.
  offersOf =
    exports: parsed:
    let
      network = (networkOf (safe (exports."${parsed.network}::".networking or null))).networking or { };
      hosts = filter (found: found != null) (
        map (host: match "[[:space:]]*([^[:space:]]+)[[:space:]]*" host.plain) (
          (peerOf (safe (exports.${parsed.scope}.peer or null))).peer.hosts or [ ]
        )
      );
    in
    if parsed.service == public || elem (network.module or null) proxied || hosts == [ ] then
      [ ]
    else
      [
        (
          parsed
          // {
            priority = network.priority or 1000;
            host = head (head hosts);
          }
        )
      ];
  scopes = exports: concatMap parsedOf (attrNames exports);
in
{
  # reduced : exports -> exports: hosts and networks, without secrets and paths.
  reduced =
    exports:
    listToAttrs (
      filter (entry: entry.value != { }) (
        map (name: {
          inherit name;
          value = reducedOne exports.${name};
        }) (attrNames exports)
      )
    );

  # scopes : exports -> [ { scope, service, instance, network, machine } ]: the keys; no value is read.
  inherit scopes;

  # networks : exports -> { <machine> = [ scope // { priority, host } ]; }
  # The networks in which a machine has an address. clan-discovery uses the first.
  networks =
    exports:
    mapAttrs (
      _: members:
      sort (a: b: a.priority > b.priority || (a.priority == b.priority && a.scope < b.scope)) (
        concatMap (offersOf exports) members
      )
    ) (removeAttrs (groupBy (scope: scope.machine) (scopes exports)) [ "" ]);

  homes =
    _:
    throw "clan-discovery: exports.homes was removed: give `exports.reduced exports` to clan-discovery as inventory.exports, which chooses the addresses";
}
