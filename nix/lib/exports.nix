# The exports of overlay networks, reduced to what discovery reads. Keys are `SERVICE:INSTANCE:ROLE:MACHINE` (clan-core,
# lib/exports). clan-discovery chooses the address (`inventory/clan/exports.py`).
let
  inherit (builtins)
    attrNames
    deepSeq
    filter
    intersectAttrs
    listToAttrs
    map
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

  homes =
    _:
    throw "clan-discovery: exports.homes was removed: give `exports.reduced exports` to clan-discovery as inventory.exports, which chooses the addresses";
}
