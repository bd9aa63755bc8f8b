# Exports of overlay networks as an address book: where a machine is while nobody sees it. Python's
# `inventory/exports.py` reads the same.
#
# Keys are `SERVICE:INSTANCE:ROLE:MACHINE`; a network says its priority at `SERVICE:INSTANCE::`, and where a machine is at
# the machine's (clan-core, lib/exports, modules/clan/export-modules/{peer,networking}.nix).
{ host }:
let
  inherit (builtins)
    attrNames
    concatLists
    elem
    filter
    head
    isString
    length
    listToAttrs
    map
    match
    sort
    split
    tryEval
    deepSeq
    ;

  # Networks that need a proxy of their own: no scraper reaches these addresses.
  proxied = [
    "clan_lib.network.tor"
    "clan_lib.network.p2p_ssh_iroh"
  ];
  defaultPriority = 1000;
  # No overlay network: its hosts are where ssh gets in from everywhere (clan-core, clanServices/internet), and its
  # priority is the highest of all. No port of an exporter is open there.
  isPublic = service: match "(.*/)?internet" service != null;

  parts = key: filter isString (split ":" key);

  # One value that was not generated yet must not take the others with it.
  safe =
    value:
    let
      tried = tryEval (deepSeq value value);
    in
    if tried.success then tried.value else null;

  trim =
    text:
    let
      found = match "[[:space:]]*([^[:space:]]*)[[:space:]]*" text;
    in
    if found == null then text else head found;
  unbracketed =
    text:
    let
      found = match "\\[(.*)]" text;
    in
    if found == null then text else head found;
  plainHosts =
    peer:
    if peer == null then
      [ ]
    else
      filter (name: host.isHost name && host.isElsewhere name) (
        map (entry: unbracketed (trim entry.plain)) (filter (entry: entry ? plain) (peer.hosts or [ ]))
      );

  # homes : exports -> { <machine> = { address, words } }
  # The first host of the network with the highest priority; of two alike, the smaller key.
  homes =
    exports:
    let
      network =
        key:
        let
          p = parts key;
          found = safe (exports."${builtins.elemAt p 0}:${builtins.elemAt p 1}::".networking or null);
        in
        if found == null then { } else found;
      entry =
        key:
        let
          p = parts key;
          hosts = plainHosts (safe (exports.${key}.peer or null));
          net = network key;
        in
        if
          length p != 4
          || builtins.elemAt p 3 == ""
          || isPublic (builtins.elemAt p 0)
          || hosts == [ ]
          || elem (net.module or "") proxied
        then
          [ ]
        else
          [
            {
              inherit key;
              machine = builtins.elemAt p 3;
              address = head hosts;
              priority = net.priority or defaultPriority;
            }
          ];
      entries = sort (a: b: if a.priority != b.priority then a.priority > b.priority else a.key < b.key) (
        concatLists (map entry (attrNames exports))
      );
      # listToAttrs keeps the first of a name.
      best = listToAttrs (
        map (e: {
          name = e.machine;
          value = {
            inherit (e) address;
            words = "exports: ${e.key} (priority ${toString e.priority})";
          };
        }) entries
      );
      claims = builtins.groupBy (machine: best.${machine}.address) (attrNames best);
    in
    # An address that two machines have is neither's: one would be scraped under two names.
    builtins.removeAttrs best (
      concatLists (filter (machines: length machines > 1) (builtins.attrValues claims))
    );

  # reduced : exports -> exports
  # What of the exports an address book needs, and no more, to be written as JSON: a host by `var` would bring the
  # flake's own path along, which changes at every commit.
  reduced =
    exports:
    let
      hostsOf =
        peer:
        map (host: { inherit (host) plain; }) (
          filter (host: host ? plain) (if peer == null then [ ] else peer.hosts or [ ])
        );
      kept =
        key:
        let
          hosts = hostsOf (safe (exports.${key}.peer or null));
          network = safe (exports.${key}.networking or null);
        in
        (if hosts == [ ] then { } else { peer = { inherit hosts; }; })
        // (
          if network == null then
            { }
          else
            {
              networking = builtins.intersectAttrs {
                module = null;
                priority = null;
              } network;
            }
        );
    in
    listToAttrs (
      filter (entry: entry.value != { }) (
        map (name: {
          inherit name;
          value = kept name;
        }) (attrNames exports)
      )
    );
in
{
  inherit homes reduced;
}
