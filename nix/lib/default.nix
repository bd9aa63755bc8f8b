# Pure functions that make jobs for Prometheus, VictoriaMetrics, vmagent and Alloy from targets. They need only
# `builtins`: no nixpkgs, store or network.
#
#   let cd = import ./nix/lib; in
#   cd.staticJobs (cd.snapshot ./targets.nix)                   # or ./targets.json
#   cd.fileSdJobs { directory = "/var/lib/clan-discovery/targets"; jobs = [ "node" ]; }
#
# A *source* is what `snapshot`, `show --format nix` or `--format json` writes, or an attribute set of target files by
# job. A *job* is a scrape config of Prometheus. `problemsOf` returns problems as data, `checked` throws them.
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    concatStringsSep
    filter
    fromJSON
    genList
    groupBy
    head
    isAttrs
    isList
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    readFile
    replaceStrings
    split
    substring
    toJSON
    ;

  data = ../../clan_discovery/data;
  read = file: fromJSON (readFile file);

  # Python's `inventory/exporters.py` reads the same files and adds the same exporter, which NixOS had up to 25.11.
  nixosExporters =
    mapAttrs
      (
        _: entry:
        entry
        // {
          nixos = true;
          params = { };
        }
      )
      (
        read (data + "/exporters.json")
        // {
          scaphandre = {
            port = 8080;
            path = "/metrics";
            kind = "plain";
          };
        }
      );
  services = mapAttrs (_: entry: {
    inherit (entry) port path;
    kind = "service";
    nixos = false;
    params = mapAttrs (_: head) (entry.params or { });
  }) (read (data + "/services.json"));

  # Exporter types with a default port: `port`, `path`, `kind` (plain, probe or service), `nixos`, `params`.
  exporters = services // nixosExporters;

  # limits : { <name> = { default; unit; alert; description; }; }: the limits that alert rules read.
  limits = read (data + "/limits.json");

  # exporter : string -> { port, path, kind, nixos, params }
  # Throws on an unknown type.
  exporter =
    type:
    exporters.${type}
      or (throw "clan-discovery: unknown exporter type '${type}': set its port, or use a type of clan_discovery/data/exporters.json");

  # labelSafe : string -> string
  # Writes any text as the tail of a label name, as `__meta_clan_machine_tag_<tag>` does.
  # One `_` for each character, as in Python. Nix counts bytes, so all but the first byte of a character are removed.
  labelSafe =
    text:
    concatStringsSep "" (
      map (part: if isString part then part else "_") (
        split "[^a-zA-Z0-9_]" (replaceStrings continuation (map (_: "") continuation) text)
      )
    );
  # The bytes 80 to bf, each the second one of a character from U+0080 to U+00BF.
  continuation =
    let
      digits = genList (n: substring n 1 "0123456789abcdef") 16;
    in
    concatLists (
      map (high: map (low: substring 1 1 (fromJSON "\"\\u00${high}${low}\"")) digits) [
        "8"
        "9"
        "a"
        "b"
      ]
    );

  # snapshot : path -> source
  # Reads a committed file: targets.nix or targets.json.
  snapshot =
    file: if match ".*\\.json" (toString file) != null then fromJSON (readFile file) else import file;

  # groups : source -> { <job> = [ { targets; labels; } ]; }
  groups =
    source:
    if isList (source.targets or null) then
      # show --format json: one list of targets, and a list of all jobs
      listToAttrs (
        map (job: {
          name = job;
          value = map (target: {
            targets = [ target.address ];
            labels = removeAttrs target.labels [ "job" ];
          }) (filter (target: target.job == job) source.targets);
        }) source.jobs
      )
    else if isAttrs (source.jobs or null) then
      source.jobs
    else
      source;

  # additional : source -> [ job ]
  additional = source: source.additionalScrapeConfigs or source.additional_scrape_configs or [ ];

  # staticJobs : source -> [ job ]
  # One job for each exporter type with targets.
  staticJobs =
    source:
    let
      found = groups source;
    in
    map (job: {
      job_name = job;
      static_configs = found.${job};
    }) (filter (job: found.${job} != [ ]) (attrNames found));

  # fileSdJobs : { directory, jobs, refreshInterval ? null, split ? 1 } -> [ job ]
  # One job for the files of each job; `jobs` is a list of names, or a source. `split` is `output.split` of the config:
  # how many files each job has, or each job of a set.
  fileSdJobs =
    {
      directory,
      jobs,
      refreshInterval ? null,
      split ? 1,
    }:
    let
      count = job: if isAttrs split then split.${job} or 1 else split;
      name = job: if count job > 1 then "${job}.*" else job;
    in
    map (job: {
      job_name = job;
      file_sd_configs = [
        (
          {
            files = [ "${directory}/${name job}.json" ];
          }
          // (if refreshInterval == null then { } else { refresh_interval = refreshInterval; })
        )
      ];
    }) (if isList jobs then jobs else attrNames (groups jobs));

  # configured : { <job> = settings; } -> [ job ] -> [ job ]
  # Merges the config's `jobs` into the jobs of these names, without what the target files hold: `scheme`,
  # `metrics_path`, and each parameter that can be a label (Python's `config/scrape.py`). Relabelling is appended.
  configured =
    settings: jobs:
    let
      listed = value: if isList value then value else [ value ];
      isWritten = name: value: length value == 1 && isLabel "__param_${name}";
      of =
        given:
        let
          params = mapAttrs (_: listed) (if isAttrs (given.params or null) then given.params else { });
          others = removeAttrs params (filter (name: isWritten name params.${name}) (attrNames params));
        in
        removeAttrs given [
          "metrics_path"
          "params"
          "scheme"
        ]
        // (if others == { } then { } else { params = others; });
      relabelled =
        job: given:
        if job ? relabel_configs && given ? relabel_configs then
          { relabel_configs = job.relabel_configs ++ given.relabel_configs; }
        else
          { };
    in
    map (
      job:
      let
        given = of (settings.${job.job_name} or { });
      in
      given // job // relabelled job given
    ) jobs;

  # merge : [ job ] -> [ job ] -> [ job ]
  # Adds the user's own jobs after ours. `problemsOf` reports duplicate names.
  merge = ours: theirs: ours ++ theirs;

  # duplicates : [ job ] -> [ string ]
  # The names of more than one job.
  duplicates =
    jobs:
    let
      byName = groupBy (job: job.job_name or "") jobs;
    in
    filter (name: length byName.${name} > 1) (attrNames byName);

  # splitAddress : string -> { host, port } or null
  # Reads `host:port` and `[v6]:port`.
  splitAddress =
    address:
    let
      found = service.splitEndpoint address;
    in
    if found == null || found.port == null then null else found;

  # problemsOf : [ job ] -> [ { assertion, message } ]
  # As the NixOS module system's `assertions`, including those that hold.
  problemsOf =
    jobs:
    let
      # NixOS sets options without a value to null.
      orEmpty = empty: value: if value == null then empty else value;
      groups = concatMap (
        job:
        map (group: {
          job = job.job_name or "?";
          targets = orEmpty [ ] (group.targets or null);
          labels = orEmpty { } (group.labels or null);
        }) (orEmpty [ ] (job.static_configs or null))
      ) jobs;
      isTarget = address: splitAddress address != null;
      isGood = labels: name: isLabel name && isString labels.${name};
      nameless = filter (job: !isString (job.job_name or null) || job.job_name == "") jobs;

      twice = duplicates jobs;
      targets = concatMap (
        group: map (address: "${group.job}: ${address}") (filter (one: !isTarget one) group.targets)
      ) groups;
      labels = concatMap (
        group:
        map (name: "${group.job}: ${name}") (
          filter (name: !isGood group.labels name) (attrNames group.labels)
        )
      ) groups;
      none = found: message: {
        assertion = found == [ ];
        message = "clan-discovery: ${message}";
      };
    in
    [
      (none twice "more than one scrape config is named ${quoted twice}, which Prometheus refuses: rename one")
      (none nameless "${toString (length nameless)} scrape config(s) without a job_name: set one")
      (none targets "invalid address ${quoted targets}: write host:port, IPv6 in brackets")
      (none labels "invalid label ${quoted labels}: use letters, digits and underscores, and a string as the value")
    ];
  quoted = names: concatStringsSep ", " (map (name: "'${name}'") names);

  # checked : [ job ] -> [ job ]
  # Returns the jobs, or throws all problems.
  checked =
    jobs:
    let
      wrong = filter (problem: !problem.assertion) (problemsOf jobs);
    in
    if wrong == [ ] then jobs else throw (concatStringsSep "\n" (map (problem: problem.message) wrong));

  # prometheus : [ job ] -> [ job ]                       services.prometheus.scrapeConfigs
  prometheus = checked;

  # victoriametrics : [ job ] -> { scrape_configs }       services.victoriametrics.prometheusConfig, and vmagent's
  # VictoriaMetrics expands `%{NAME}` from its environment in the whole file, so generated text with it is refused. It
  # refuses `refresh_interval` of files, for which it has -promscrape.fileSDCheckInterval.
  victoriametrics =
    jobs:
    let
      expands = filter (job: match ".*%[{].*" (flat (toJSON job)) != null) jobs;
      translated =
        job:
        if job ? file_sd_configs then
          job // { file_sd_configs = map (sd: removeAttrs sd [ "refresh_interval" ]) job.file_sd_configs; }
        else
          job;
    in
    if expands == [ ] then
      { scrape_configs = map translated (checked jobs); }
    else
      throw "clan-discovery: ${
        quoted (map (job: job.job_name) expands)
      } contains '%{', which VictoriaMetrics expands as a variable of its environment: rename it";
  # A dot in a pattern stops at the end of a line.
  flat = replaceStrings [ "\n" "\r" ] [ " " " " ];

  # alloy : { jobs, forwardTo, global ? { } } -> string    a fragment for /etc/alloy/<name>.alloy
  # Throws what `alloyComplaints` returns.
  alloy =
    arguments:
    let
      wrong = alloyComplaints (checked arguments.jobs);
    in
    if wrong == [ ] then
      fragments.fragment arguments
    else
      throw (concatStringsSep "\n" (map (what: "clan-discovery: ${what}") wrong));
  # alloyComplaints : [ job ] -> [ string ]: what Alloy does not have.
  alloyComplaints = fragments.complaints;
  fragments = import ./alloy.nix {
    inherit labelSafe;
    inherit (service) milliseconds;
  };

  # sharded : { members, number, replicas ? 1 } -> [ job ] -> [ job ]
  # The share of one of several servers: each target is scraped by exactly `replicas` of them. It depends on names, not on
  # addresses, so that a machine that moves stays with its server.
  sharded =
    {
      members,
      number,
      replicas ? 1,
      labels ? [
        "job"
        "instance"
      ],
    }:
    let
      # Its own part, and those of the servers before it.
      parts = genList (
        back: if number >= back then number - back else number - back + members
      ) replicas;
    in
    map (
      job:
      job
      // {
        relabel_configs = (job.relabel_configs or [ ]) ++ [
          {
            source_labels = labels;
            modulus = members;
            target_label = "__tmp_clan_shard";
            action = "hashmod";
          }
          {
            source_labels = [ "__tmp_clan_shard" ];
            regex = concatStringsSep "|" (map toString parts);
            action = "keep";
          }
        ];
      }
    );

  # Jobs that servers do not share: every server scrapes every server, and itself.
  unshared = [
    "clan-discovery"
    "prometheus"
  ];

  settings = import ./service.nix { inherit exporters; };
  service = settings // {
    complaintsOf = member: settings.complaintsOf member ++ exposed.complaintsOf (member.expose or { });
  };
  inherit (service) isLabel;
  declared = import ./declared.nix { inherit service exposed storage; };
  exports = import ./exports.nix;
  exposed = import ./exposed.nix {
    service = settings;
    inherit exporters;
  };
  manifest = import ./manifest.nix;
  storage = import ./storage.nix {
    inherit service;
    known = read (data + "/storage.json");
  };
in
{
  inherit
    additional
    alloy
    alloyComplaints
    checked
    configured
    declared
    duplicates
    exporter
    exporters
    exports
    exposed
    fileSdJobs
    groups
    isLabel
    labelSafe
    limits
    manifest
    merge
    problemsOf
    prometheus
    service
    sharded
    snapshot
    splitAddress
    staticJobs
    storage
    unshared
    victoriametrics
    ;
}
