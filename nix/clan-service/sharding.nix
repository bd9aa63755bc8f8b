# How servers share the targets: by rules of each scraper (`hashmod`), or by clan-discovery, which writes only the share of
# its server (`rendezvous`).
{ lib, cd }:
seen:
let
  # No server runs on a darwin machine.
  runs = lib.filter (
    member: (seen.machines.${member.machine}.machineClass or "") == "nixos"
  ) seen.servers;
  ofKind = kind: lib.filter (member: member.settings.sharding == kind) runs;
  # Sorted, so that each server has the same list.
  hashmod = lib.sort (a: b: a < b) (seen.machinesOf (ofKind "hashmod"));

  # { <machine> = settings; }: another instance may name the same machine.
  members = lib.mapAttrs (_: entries: (lib.head entries).settings) (
    lib.groupBy (member: member.machine) (ofKind "rendezvous")
  );
  names = lib.attrNames members;
  active = lib.filter (name: members.${name}.shardState == "active") names;
  own = members.${seen.server} or null;

  quoted = values: lib.concatStringsSep " and " (map (value: "\"${toString value}\"") values);
  listed = lib.concatStringsSep ", ";

  # Settings that only rendezvous hashing reads.
  unused =
    member:
    lib.optional (member.settings.replicas != 1) "replicas"
    ++ lib.optional (member.settings.shardWeight != 1) "shardWeight"
    ++ lib.optional (member.settings.shardState != "active") "shardState";

  # Names of settings that two members set differently.
  differing =
    words: entries:
    lib.filter (
      word: lib.length (lib.unique (map (member: member.settings.${word}) entries)) > 1
    ) words;
  kinds = lib.unique (map (member: member.settings.sharding) runs);
  alike = lib.groupBy lib.toLower names;
  twice = lib.filter (group: lib.length group > 1) (lib.attrValues alike);

  # partOf : [ string ] -> { members, number }: the part of this server in rules.
  partOf = machines: {
    members = lib.length machines;
    number = lib.lists.findFirstIndex (name: name == seen.server) null machines;
  };
  share = if lib.elem seen.server hashmod then partOf hashmod else null;
in
{
  # share : { members, number } or null: the part of this server in rules of generated jobs.
  inherit share;

  # ownShare : { members, number, replicas ? 1 } or null: the part in rules of the user's own jobs, which clan-discovery
  # does not write. While a server joins or leaves, each server scrapes them whole, because every part changes with the
  # number of servers.
  ownShare =
    if own != null && active == names && own.replicas < lib.length names then
      partOf names // { inherit (own) replicas; }
    else
      share;

  # shard : `shard` of the config, or null
  shard =
    if own == null then
      null
    else
      {
        member = seen.server;
        inherit (own) replicas;
        members = lib.mapAttrs (
          _: settings:
          lib.optionalAttrs (settings.shardWeight != 1) { weight = settings.shardWeight; }
          // lib.optionalAttrs (settings.shardState != "active") { state = settings.shardState; }
        ) members;
        inherit (cd) unshared;
      };

  # machines : [ string ]: those that share the targets with this one, and this one.
  machines = if own != null then names else lib.optionals (share != null) hashmod;

  # complaints : [ string ]
  complaints =
    lib.concatMap (
      member:
      map (
        word:
        "${member.where}.${word} needs `sharding = \"rendezvous\"`, but sharding is \"${member.settings.sharding}\": remove it, or set sharding for the role"
      ) (unused member)
    ) (lib.filter (member: member.settings.sharding != "rendezvous") (seen.on runs))
    ++
      lib.optional (lib.elem "rendezvous" kinds && lib.length kinds > 1)
        "servers have ${quoted kinds} as `sharding`, and each would count on another list of servers: set it for the role, and in every instance"
    ++ lib.optional (differing [ "replicas" ] (ofKind "rendezvous") != [ ]) (
      "${listed names} differ in `replicas`, and each would compute other shares: set it for the role, not for one machine"
    )
    ++ lib.concatLists (
      lib.mapAttrsToList (
        name: entries:
        map (word: "${name} is a server of two instances, which differ in `${word}`: set it in both") (
          differing [ "shardState" "shardWeight" ] entries
        )
      ) (lib.groupBy (member: member.machine) (ofKind "rendezvous"))
    )
    ++
      lib.optional (own != null && active == [ ])
        "no server is active: remove shardState of ${
          if own.replicas == 1 then "one server" else "${toString own.replicas} servers"
        }"
    ++
      lib.optional (own != null && active != [ ] && own.replicas > lib.length active)
        "replicas is ${toString own.replicas}, but only ${listed active} ${
          if lib.length active == 1 then "is" else "are"
        } active: add servers, or set `replicas` to ${toString (lib.length active)}${
          lib.optionalString (active != names) ", or remove shardState of another server"
        }"
    ++
      map
        (
          group:
          "the servers ${listed group} are one, because shares ignore the case of names: rename one of these machines"
        )
        twice;

  # scrapersOf : (string -> string) -> { <machine> = { url; }; }: the other servers that share the targets, if they listen
  # for this one, at the addresses of these machines.
  scrapersOf =
    addressOf:
    let
      inherit (import ../nixos/scraper.nix { inherit lib cd; }) remote;
      isOpen =
        settings:
        settings.backend != "alloy" && !cd.service.isLoopback (settings.listenAddress or null);
      found = lib.mapAttrs (name: settings: remote settings (addressOf name)) (
        lib.filterAttrs (_: isOpen) (removeAttrs members [ seen.server ])
      );
    in
    lib.optionalAttrs (own != null) (
      lib.mapAttrs (_: one: { url = lib.mkDefault one.url; }) (lib.filterAttrs (_: one: !one.closed) found)
    );
}
