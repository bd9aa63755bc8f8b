# The names of a server, as clan-core's export `endpoints`: its services give them a DNS record (dm-dns) and a
# certificate (pki).
{ lib, cd }:
let
  # A server on loopback is not reachable by its name, and an agent stores nothing that could be shown.
  serves =
    settings:
    cd.service.isServer settings
    && settings.backend != "vmagent"
    && settings.backend != "alloy"
    && (settings.enableAgentMode or false) != true
    && !cd.service.isLoopback (settings.listenAddress or null);

  # A mistyped setting of another server counts as serving.
  mayServe =
    settings:
    let
      tried = builtins.tryEval (serves settings);
    in
    !tried.success || tried.value;
in
{
  # hostsOf : { instances, domain, machine, settings } -> [ string ]
  # With several servers there is no default: one name would point at all of them. Nor if it is a machine's name.
  hostsOf =
    {
      instances,
      domain,
      machine,
      settings,
    }:
    let
      members = lib.concatMap (instance: lib.attrsToList (instance.roles.server.machines or { })) (
        lib.attrValues instances
      );
      serving = lib.filter (member: mayServe member.value.finalSettings.config) members;
      isMachine = lib.any (role: role.machines or { } ? prometheus) (
        lib.concatMap (instance: lib.attrValues instance.roles) (lib.attrValues instances)
      );
      isOnlyServer = lib.all (member: member.name == machine) serving;
    in
    if settings.endpoints != null then
      settings.endpoints
    else
      lib.optional (isOnlyServer && !isMachine && serves settings) "prometheus.${domain}";

  # elsewhere : exports -> string -> [ string ] -> [ { host, scope } ]: names that other machines export, too.
  elsewhere =
    exports: machine: hosts:
    let
      exported =
        scope:
        let
          tried = builtins.tryEval (exports.${scope}.endpoints.hosts or [ ]);
        in
        if tried.success then tried.value else [ ];
      others = lib.filter (scope: !lib.hasSuffix ":${machine}" scope) (lib.attrNames exports);
    in
    lib.concatMap (
      scope: map (host: { inherit host scope; }) (lib.intersectLists hosts (exported scope))
    ) others;
}
