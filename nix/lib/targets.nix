# What an inventory declares becomes targets without asking anybody: each machine at its home, or at its name. The same
# targets, label by label, as Python's resolver gives where no backend is asked (`resolve/roles.py`, `resolve/targets.py`).
#
# A *view* is what the service sees:
#   { domain; server; machines.<m> = { tags; machineClass; }; homes.<m> = { address; };
#     instances.<i>.{server,exporter}.<m> = settings; }
{
  service,
  host,
  labelSafe,
}:
let
  inherit (host) joined;
  form = import ./form.nix;

  inherit (builtins)
    any
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    groupBy
    length
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    sort
    ;

  letters = text: builtins.genList (n: builtins.substring n 1 text) 26;
  folded = replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (
    letters "abcdefghijklmnopqrstuvwxyz"
  );

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

  members =
    view: role:
    concatLists (
      map (
        instance:
        let
          found = view.instances.${instance}.${role} or { };
        in
        map (machine: {
          inherit instance role machine;
          settings = found.${machine};
        }) (filter (machine: view.machines ? ${machine}) (attrNames found))
      ) (attrNames view.instances)
    );

  # serversOf : view -> [ member ]: the roles whose wishes count, those of the machine that scrapes.
  serversOf =
    view: filter (member: view.server == null || member.machine == view.server) (members view "server");

  isNixos = view: machine: view.machines.${machine}.machineClass != "darwin";

  # expectedOf : view -> [ { machine, instance, role, exporter } ]
  # What the inventory declares, but for exporters that no darwin machine has and probes without a target.
  expectedOf =
    view:
    let
      servers = serversOf view;
      discovering = servers == [ ] || any (member: member.settings.enableAutoDiscovery or true) servers;
      exporting = concatLists (
        map (
          member:
          map (exporter: {
            inherit (member) machine instance role;
            inherit exporter;
          }) (service.exportersOf member.settings)
        ) (members view "exporter")
      );
      serving = concatLists (
        map (
          member:
          if service.scrapesServers member.settings then
            [
              {
                inherit (member) machine instance role;
                exporter = service.serverExporter member.settings;
              }
            ]
          else
            [ ]
        ) (members view "server")
      );
      usable =
        expected:
        !expected.exporter.idle
        && expected.exporter.port != null
        && (isNixos view expected.machine || !(expected.exporter.nixos || expected.role == "server"));
    in
    filter usable ((if discovering then exporting else [ ]) ++ serving);

  # The written-down targets of this server, under the machine that they are, or the host.
  endpointsOf =
    view:
    let
      byName = listToAttrs (
        map (machine: {
          name = folded machine;
          value = machine;
        }) (attrNames view.machines)
      );
      found = concatLists (map (member: service.endpointsOf member.settings) (serversOf view));
    in
    map (endpoint: endpoint // { machine = byName.${folded endpoint.host} or endpoint.host; }) (
      filter (e: e.host != null && e.exporter.port != null && !e.exporter.idle) found
    );

  dnsJobsOf =
    view:
    concatLists (
      map (
        member:
        if
          (member.settings.enableAutoDiscovery or true) && elem "dns" (service.methodsOf member.settings)
        then
          attrNames (member.settings.dnsDiscovery or { })
        else
          [ ]
      ) (serversOf view)
    );

  # jobsOf : view -> [ string ]: every job that there is, also those that only DNS fills.
  jobsOf =
    view:
    unique (
      map (expected: expected.exporter.type) (expectedOf view)
      ++ map (e: e.job) (endpointsOf view)
      ++ dnsJobsOf view
    );

  tagLabels =
    tags:
    if tags == [ ] then
      { }
    else
      {
        __meta_clan_machine_tags = ",${concatStringsSep "," tags},";
      }
      // listToAttrs (
        map (tag: {
          name = "__meta_clan_machine_tag_${labelSafe tag}";
          value = "1";
        }) (filter (tag: tag != "") tags)
      );

  exporterLabels =
    exporter:
    {
      __meta_clan_exporter = exporter.type;
    }
    // (if exporter.path == "/metrics" then { } else { __metrics_path__ = exporter.path; })
    // (if exporter.scheme == "http" then { } else { __scheme__ = exporter.scheme; })
    // listToAttrs (
      map (name: {
        name = "__param_${name}";
        value = exporter.params.${name};
      }) (attrNames exporter.params)
    );

  # candidatesOf : view -> [ { job, machine, host, exporter, labels } ]
  candidatesOf =
    view:
    let
      home = machine: (view.homes.${machine} or { address = "${machine}.${view.domain}"; }).address;
      tagsOf = machine: unique (view.machines.${machine}.tags or [ ]);
    in
    map (expected: {
      job = expected.exporter.type;
      inherit (expected) machine exporter;
      host = home expected.machine;
      labels =
        expected.exporter.labels
        // tagLabels (tagsOf expected.machine)
        // {
          __meta_clan_instance = expected.instance;
          __meta_clan_role = expected.role;
          __meta_clan_observed = "false";
        };
    }) (expectedOf view)
    ++ map (endpoint: {
      inherit (endpoint)
        job
        machine
        host
        exporter
        ;
      labels = tagLabels (tagsOf endpoint.machine) // {
        __meta_clan_backend = "inventory";
        __meta_clan_observed = "true";
      };
    }) (endpointsOf view);

  # Two exporters of one job on one machine are told apart by their port; on one port, by path and query.
  endpointOf = exporter: {
    inherit (exporter)
      port
      scheme
      path
      params
      ;
  };
  distinct =
    candidates:
    builtins.foldl' (
      kept: candidate:
      if any (other: endpointOf other.exporter == endpointOf candidate.exporter) kept then
        kept
      else
        kept ++ [ candidate ]
    ) [ ] candidates;
  instanceOf =
    candidates: candidate:
    let
      inherit (candidate) exporter machine;
      alike = filter (other: other.exporter.port == exporter.port) candidates;
      name = joined machine exporter.port;
      query = concatStringsSep "&" (
        map (p: "${form p}=${form exporter.params.${p}}") (attrNames exporter.params)
      );
    in
    if length candidates == 1 then
      machine
    else if length alike == 1 then
      name
    else
      "${if exporter.scheme == "http" then "" else "${exporter.scheme}://"}${name}${exporter.path}"
      + (if exporter.params == { } then "" else "?${query}");

  # targetsOf : view -> { <job> = [ { targets, labels } ]; }
  # As `show --format json` of an inventory of which nobody is asked; a job without targets is there, empty.
  targetsOf =
    view:
    let
      # A machine whose name is no host is no target, and the others are: Python excludes it as inexpressible.
      byJob = groupBy (candidate: candidate.job) (
        filter (candidate: host.isHost candidate.host) (candidatesOf view)
      );
      ofMachine =
        candidates:
        let
          kept = distinct candidates;
        in
        map (candidate: {
          targets = [ (joined candidate.host candidate.exporter.port) ];
          labels =
            candidate.labels
            // exporterLabels candidate.exporter
            // {
              instance = instanceOf kept candidate;
              inherit (candidate) machine;
            };
        }) kept;
      ofJob =
        candidates:
        sort (
          a: b:
          if a.labels.instance != b.labels.instance then
            a.labels.instance < b.labels.instance
          else
            a.targets < b.targets
        ) (concatLists (map ofMachine (attrValues (groupBy (candidate: candidate.machine) candidates))));
    in
    listToAttrs (
      map (job: {
        name = job;
        value = ofJob (byJob.${job} or [ ]);
      }) (jobsOf view)
    );

  # inventoryOf : view -> inventory JSON
  # What the service sees as an inventory that Python reads: plain settings, tags as they are.
  inventoryOf =
    view:
    let
      # Only what discovery reads: the file is for everybody to read, and what else is set may hold secrets.
      serving =
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
        // (if settings ? scrapeServers then { scrapeServers = service.scrapesServers settings; } else { });
      roleOf = words: found: {
        machines = mapAttrs (_: settings: { settings = words settings; }) (
          listToAttrs (
            map (machine: {
              name = machine;
              value = found.${machine};
            }) (filter (machine: view.machines ? ${machine}) (attrNames found))
          )
        );
      };
      named = tag: filter (machine: elem tag view.machines.${machine}.tags) (attrNames view.machines);
    in
    {
      machines = mapAttrs (_: machine: { inherit (machine) tags machineClass; }) view.machines;
      # Where a clan says itself who bears these, its word counts and not what is computed.
      tags = {
        all = named "all";
        nixos = named "nixos";
        darwin = named "darwin";
      };
      meta.domain = view.domain;
      instances = mapAttrs (_: instance: {
        module.name = "prometheus";
        roles =
          (if instance ? server then { server = roleOf serving instance.server; } else { })
          // (if instance ? exporter then { exporter = roleOf exporterSettings instance.exporter; } else { });
      }) view.instances;
    };
  exporterSettings =
    settings:
    let
      words = [
        "enable"
        "exporterType"
        "metricsEndpoint"
        "metricsPath"
        "port"
        "telemetryPath"
      ]
      ++ service.scrapeWords;
      many = settings.exporters or { };
    in
    keep words settings
    // (if many == { } then { } else { exporters = mapAttrs (_: keep words) many; });
  # Words that say nothing are left out: the file changes with what is said, and with nothing else.
  keep =
    words: settings:
    listToAttrs (
      map
        (name: {
          inherit name;
          value = settings.${name};
        })
        (
          filter (
            name: (settings.${name} or null) != null && settings.${name} != { } && settings.${name} != [ ]
          ) words
        )
    );
in
{
  inherit
    inventoryOf
    jobsOf
    targetsOf
    ;
}
