# What an inventory declares, as data for clan-discovery, which computes the targets: `render` in a build, `refresh` on
# the machine.
#
# A *view* is the clan as the service sees it:
#   { domain; server; machines.<m> = { tags; machineClass; description ? null; };
#     instances.<i>.{server,exporter,front,agent,logs,alerting,dashboards,storage}.<m> = settings; }
# `darwin ? "exclude"` is `policy.darwin`: which NixOS exporters of darwin machines are targets.
{
  service,
  exposed,
  storage,
}:
let
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatLists
    concatMap
    elem
    filter
    intersectAttrs
    listToAttrs
    map
    mapAttrs
    ;

  # Sorted, and each name once.
  unique =
    names:
    attrNames (
      listToAttrs (
        map (name: {
          inherit name;
          value = null;
        }) names
      )
    );

  # runsOnDarwin : string -> exporter -> bool: whether the policy makes the exporter of a darwin machine a target.
  runsOnDarwin =
    policy: exporter:
    !exporter.nixos
    || elem policy [
      "include"
      exporter.type
    ];

  # pulledOf : view -> role -> [ { <m> = settings; } ]: the members of each instance whose metrics a server reads; a
  # machine in the role agent sends them.
  pulledOf =
    view: role:
    let
      agents = concatMap (instance: attrNames (instance.agent or { })) (attrValues view.instances);
    in
    map (instance: removeAttrs (instance.${role} or { }) agents) (attrValues view.instances);

  # exportersOf : view -> [ exporter ]: exporters that can be targets.
  exportersOf =
    view:
    let
      isDarwin = machine: (view.machines.${machine}.machineClass or "") == "darwin";
      isTarget =
        machine: exporter:
        !exporter.idle
        && !exporter.loopback
        && (!isDarwin machine || runsOnDarwin (view.darwin or "exclude") exporter);
      of = machine: settings: filter (isTarget machine) (service.exportersOf settings);
    in
    concatMap (members: concatLists (attrValues (mapAttrs of members))) (pulledOf view "exporter");

  # exposedJobsOf : view -> [ string ]: jobs of the services that machines of the role exporter expose.
  exposedJobsOf =
    view:
    let
      of = _: settings: {
        expose = settings.expose or { };
        adopted = [ ];
      };
    in
    concatMap (members: exposed.jobsOf view.server (mapAttrs of members)) (pulledOf view "exporter");

  # evaluates : [ settings of the role storage ] -> settings of the role server -> bool: whether a server evaluates rules, by
  # itself or by vmalert, which reads what vmagent writes to the storage. As in Python (inventory/clan/components.py).
  evaluates =
    stores: settings:
    service.isServer settings
    && elem (settings.backend or "prometheus") (
      [
        "prometheus"
        "victoriametrics"
      ]
      ++ (if stores != [ ] && all storage.isRead stores then [ "vmagent" ] else [ ])
    );

  # componentJobsOf : view -> [ string ]: jobs of the programs of other roles, which serve metrics, too. Python decides
  # where they listen in the same way (inventory/clan/components.py).
  componentJobsOf =
    view:
    let
      membersOf =
        role: concatMap (instance: attrNames (instance.${role} or { })) (attrValues view.instances);
      alerting = unique (membersOf "alerting");
      stores = settingsOf view "storage";
      engineOf = settings: settings.engine or "victoriametrics";
      storeTypes = {
        thanos = "thanos";
        victoriametrics = "victoriametrics";
      };
      evaluating = concatMap (
        instance:
        filter (machine: evaluates stores instance.server.${machine}) (attrNames (instance.server or { }))
      ) (attrValues view.instances);
      isAlone = machine: alerting == [ machine ] && filter (other: other != machine) evaluating == [ ];
      # Of members of a role that a server reaches: on its own machine, or not on loopback.
      reached =
        role: addressOf: typeOf:
        concatMap (
          members:
          concatMap (
            machine:
            let
              settings = members.${machine};
            in
            if machine == view.server || !service.isLoopback (addressOf machine settings) then
              [ (typeOf settings) ]
            else
              [ ]
          ) (attrNames members)
        ) (pulledOf view role);
      given =
        default: settings:
        if settings.listenAddress or null == null then default else settings.listenAddress;
      here = concatMap (
        instance: if instance ? server.${view.server} then [ instance.server.${view.server} ] else [ ]
      ) (if view.server == null then [ ] else attrValues view.instances);
    in
    reached "alerting" (machine: given (if isAlone machine then "127.0.0.1" else "")) (
      _: "alertmanager"
    )
    ++ reached "dashboards" (_: _: "127.0.0.1") (_: "grafana")
    ++ reached "logs" (_: given "127.0.0.1") (settings: settings.backend or "victorialogs")
    ++ filter (type: type != null) (
      reached "storage" (
        _: settings: if engineOf settings == "thanos" then "127.0.0.1" else given "" settings
      ) (settings: storeTypes.${engineOf settings} or null)
    )
    ++ (
      if
        alerting != [ ]
        && any (settings: settings.backend or "prometheus" != "prometheus" && evaluates stores settings) here
      then
        [ "vmalert" ]
      else
        [ ]
    );

  # settingsOf : view -> role -> [ settings ]: of every member of every instance.
  settingsOf =
    view: role: concatMap (instance: attrValues (instance.${role} or { })) (attrValues view.instances);

  # Settings of the machine that scrapes, or of all servers.
  ownOf = view: filter service.isServer (saidOf view);
  saidOf =
    view:
    if view.server == null then
      settingsOf view "server"
    else
      concatMap (
        instance: attrValues (intersectAttrs { ${view.server} = null; } (instance.server or { }))
      ) (attrValues view.instances);

  discovers = settings: settings.enableAutoDiscovery or true;

  # Empty settings are omitted, so that the file changes only when a setting does.
  keep =
    names: settings:
    let
      isSaid =
        name:
        !elem (settings.${name} or null) [
          null
          { }
          [ ]
        ];
    in
    listToAttrs (
      map (name: {
        inherit name;
        value = settings.${name};
      }) (filter isSaid names)
    );

  # Only settings that discovery reads: the file is world-readable, and others may hold secrets.
  serverSettings =
    settings:
    keep [
      "backend"
      "discoveryMethod"
      "dnsDiscovery"
      "enableAutoDiscovery"
      "port"
      "staticTargets"
      "webExternalUrl"
    ] settings
    // (if service.isServer settings then { } else { enable = false; })
    // (
      if
        elem (settings.sharding or "none") [
          null
          "none"
        ]
      then
        { }
      else
        {
          inherit (settings) sharding;
          replicas = settings.replicas or 1;
        }
    )
    // (if settings ? scrapeServers then { scrapeServers = service.scrapesServers settings; } else { });

  exporterSettings =
    settings:
    let
      one = keep (
        [
          "enable"
          "exporterType"
          "listenAddress"
          "port"
          "security"
        ]
        ++ service.pathWords
        ++ service.scrapeWords
      );
      many = settings.exporters or { };
    in
    one settings
    // keep [
      "expose"
      "limits"
      "needs"
      "units"
    ] settings
    // (if many == { } then { } else { exporters = mapAttrs (_: one) many; });
  frontSettings = keep [
    "kind"
    "metrics"
  ];
  servesMetrics = settings: settings.metrics.enable or true;
  agentSettings =
    settings:
    if settings.logs.enable or null == null then
      { }
    else
      {
        logs = { inherit (settings.logs) enable; };
      };
  logsSettings = keep [
    "backend"
    "listenAddress"
    "port"
  ];
  alertingSettings = keep [
    "listenAddress"
    "port"
  ];
  dashboardsSettings = keep [ "port" ];
  storageSettings = keep [
    "engine"
    "listenAddress"
    "mode"
    "port"
    "readPort"
    "replicas"
  ];
in
{
  inherit evaluates runsOnDarwin;

  # jobsOf : view -> [ string ]: every job that the server may have, so that scrape configs are known at evaluation.
  #
  # An upper bound: clan-discovery decides which have targets. Omitted are probes without a target, NixOS exporters of
  # darwin machines, and all exporters without auto discovery, because users often have their own jobs of these names.
  jobsOf =
    view:
    let
      own = ownOf view;
      asksDns = settings: discovers settings && elem "dns" (service.methodsOf settings);
    in
    unique (
      (
        if own == [ ] || any discovers own then
          map (exporter: exporter.type) (exportersOf view)
          ++ exposedJobsOf view
          ++ componentJobsOf view
          ++ map (settings: settings.kind or "caddy") (
            filter servesMetrics (concatMap attrValues (pulledOf view "front"))
          )
        else
          [ ]
      )
      ++ (if any service.scrapesServers (settingsOf view "server") then [ "prometheus" ] else [ ])
      ++ concatMap (settings: attrNames (settings.staticTargets or { })) own
      ++ concatMap (settings: attrNames (settings.dnsDiscovery or { })) (filter asksDns own)
    );

  # inventoryOf : view -> inventory JSON: the merged settings and the final tags, as clan-discovery reads them.
  inventoryOf =
    view:
    let
      roleOf = reduce: members: {
        machines = mapAttrs (_: settings: { settings = reduce settings; }) (
          intersectAttrs view.machines members
        );
      };
      named = tag: filter (machine: elem tag view.machines.${machine}.tags) (attrNames view.machines);
    in
    {
      machines = mapAttrs (
        _: machine: { inherit (machine) tags machineClass; } // keep [ "description" ] machine
      ) view.machines;
      # The tags that the clan computed, not those that clan-discovery would compute.
      tags = {
        all = named "all";
        nixos = named "nixos";
        darwin = named "darwin";
      };
      meta.domain = view.domain;
      instances = mapAttrs (_: instance: {
        module.name = "prometheus";
        roles =
          (if instance ? server then { server = roleOf serverSettings instance.server; } else { })
          // (if instance ? exporter then { exporter = roleOf exporterSettings instance.exporter; } else { })
          // (if instance ? front then { front = roleOf frontSettings instance.front; } else { })
          // (if instance ? agent then { agent = roleOf agentSettings instance.agent; } else { })
          // (if instance ? logs then { logs = roleOf logsSettings instance.logs; } else { })
          // (if instance ? alerting then { alerting = roleOf alertingSettings instance.alerting; } else { })
          // (
            if instance ? dashboards then
              { dashboards = roleOf dashboardsSettings instance.dashboards; }
            else
              { }
          )
          // (if instance ? storage then { storage = roleOf storageSettings instance.storage; } else { });
      }) view.instances;
    };

  targetsOf =
    _:
    throw "clan-discovery: declared.targetsOf was removed: a build runs `clan-discovery render` (services.clan-discovery.mode = \"static\"), or commit `clan-discovery snapshot` and use `staticJobs (snapshot ./targets.nix)`";
}
