# Services that machines expose (`services.clan-discovery.expose`), as data for clan-discovery, which reads them in
# `inventory/exposed/`.
{ service, exporters }:
let
  inherit (builtins)
    attrNames
    attrValues
    concatLists
    concatMap
    elem
    filter
    isString
    length
    map
    mapAttrs
    match
    removeAttrs
    toJSON
    ;

  orElse = fallback: value: if value == null then fallback else value;
  set = orElse { };
  optional = condition: value: if condition then [ value ] else [ ];

  isSet =
    value:
    !elem value [
      null
      [ ]
      { }
    ];
  isRead =
    name:
    elem name [
      "job_name"
      "metrics_path"
      "params"
      "relabel_configs"
      "scheme"
      "static_configs"
    ];
  # reduced : scrape config -> scrape config
  # Names keys that are not read without their values, which may be secrets: the store is world-readable.
  reduced =
    config:
    mapAttrs (name: value: if isRead name then value else true) (
      removeAttrs config (filter (name: !isSet config.${name}) (attrNames config))
    );

  metrics = one: one.metrics or null != false;
  typeOf = name: one: orElse name (one.type or null);

  # The endpoint of the metrics: two services of a machine cannot share it.
  endpointOf =
    name: one:
    toJSON [
      one.port
      (orElse (exporters.${typeOf name one}.path or "/metrics") (one.path or null))
      (set (one.params or null))
    ];
in
rec {
  inherit typeOf;

  # from : { expose; adoptScrapeConfigs; agent; tags; } -> { expose; adopted; }, of an agent with `agent` and `agent_logs`:
  # whether it sends its metrics, and whether it has a vlagent; `tags` if it has some.
  from =
    said:
    let
      agent = said.agent or { };
      isAgent = agent.enable or false;
    in
    {
      expose = said.expose or { };
      adopted = map reduced (said.adoptScrapeConfigs or [ ]);
    }
    // (if isAgent then { agent = true; } else { })
    // (
      if isAgent && agent.logs.enable or false && agent.logs.backend or "" == "victorialogs" then
        { agent_logs = true; }
      else
        { }
    )
    // (if said.tags or [ ] == [ ] then { } else { inherit (said) tags; });

  # of : nixosConfiguration or darwinConfiguration -> as `from`
  # Evaluates nothing else of the machine. One without the options exposes nothing.
  of = machine: from (machine.config.services.clan-discovery or { });

  # jobsOf : string -> { <machine> = { expose; adopted; }; } -> [ string ]
  # The jobs, for the machine that scrapes: what listens on loopback elsewhere, and what an agent sends, is in none.
  jobsOf =
    scraper: machines:
    let
      isTarget = machine: one: metrics one && (machine == scraper || !(one.loopback or null == true));
      ofMachine =
        machine:
        let
          inherit (machines.${machine}) expose adopted;
        in
        if machines.${machine}.agent or false then
          [ ]
        else
          map (name: typeOf name expose.${name}) (
            filter (name: isTarget machine expose.${name}) (attrNames expose)
          )
          ++ filter service.isJob (map (config: config.job_name or null) adopted);
    in
    concatMap ofMachine (attrNames machines);

  # pushedJobsOf : { expose; adopted; } -> [ string ]: the jobs of an agent, which reads its own loopback.
  pushedJobsOf = one: jobsOf "" { "" = removeAttrs one [ "agent" ]; };

  # portsOf : { <name> = service; } -> [ { name; port; } ]: the ports with metrics that other machines reach.
  portsOf =
    expose:
    map
      (name: {
        inherit name;
        inherit (expose.${name}) port;
      })
      (
        filter (name: metrics expose.${name} && !(expose.${name}.loopback or null == true)) (
          attrNames expose
        )
      );

  # complaintsOf : { <name> = service; } -> [ string ]: what Python refuses.
  complaintsOf =
    expose:
    let
      isPath = path: match "/[^?#]*" path != null;
      ofOne =
        name:
        let
          one = expose.${name};
          front = set (one.front or null);
          path = one.path or null;
          said = map (what: "expose.${name}: ${what}");
        in
        said (
          optional (
            !service.isJob (typeOf name one)
          ) "'${typeOf name one}' cannot be the name of a job: set `type` to letters, digits, '_', '-', '.'"
          ++ optional (one.port == 0) "invalid port 0: must be 1 to 65535"
          ++
            optional (path != null && !isPath path)
              "`path` is ${toJSON path}, which is no path: it starts with a slash, and what follows a question mark goes into `params`"
          ++ service.labelComplaints (set (one.labels or null))
          ++
            map
              (
                parameter:
                "the parameter '${parameter}' cannot be written as a label: set it in the scrape config of the job"
              )
              (filter (parameter: !service.isLabel "__param_${parameter}") (attrNames (set (one.params or null))))
          ++ optional (
            front != { } && (!isString front.domain || match "[^[:space:]]+" front.domain == null)
          ) "front.domain is ${toJSON front.domain}, which is not a domain"
          ++ optional (
            front != { } && match "/.*" (orElse "/" (front.path or null)) == null
          ) "front.path is ${toJSON front.path}, which is no path: it starts with a slash"
        );
      measured = filter (name: metrics expose.${name}) (attrNames expose);
      others =
        name: filter (other: endpointOf other expose.${other} == endpointOf name expose.${name}) measured;
      twice = filter (name: length (others name) > 1 && name == builtins.head (others name)) measured;
    in
    concatLists (map ofOne (attrNames expose))
    ++ map (
      name:
      "expose: ${builtins.concatStringsSep " and " (others name)} have the same port ${toString expose.${name}.port} and path: set another `port`, or `metrics = false` for one of them"
    ) twice;

  # doubtsOf : { <name> = service; } -> [ string ]: what is probably a mistake.
  doubtsOf =
    expose:
    concatMap (
      name:
      optional (
        !metrics expose.${name} && expose.${name}.front or null == null
      ) "expose.${name} has neither metrics nor a front: set `front`, or remove `metrics`"
    ) (attrNames expose);

  # documentOf : string -> { <machine> = { expose; adopted; }; } -> the JSON for `inventory.exposed`
  documentOf = scraper: machines: { inherit scraper machines; };
}
