# Jobs of Prometheus as a fragment for Grafana Alloy (1.16, docs/sources/reference/components): for each job a
# discovery.file, a prometheus.scrape, and what relabels.
{ labelSafe, milliseconds }:
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    elem
    filter
    floor
    genList
    hashString
    head
    intersectAttrs
    isAttrs
    isList
    length
    listToAttrs
    map
    mapAttrs
    match
    replaceStrings
    substring
    toJSON
    ;

  # A *spec* has the keys of Prometheus that Alloy has: the name of an argument, or the spec of a block.
  same =
    names:
    listToAttrs (
      map (name: {
        inherit name;
        value = name;
      }) names
    );
  tls = same [
    "ca_file"
    "cert_file"
    "insecure_skip_verify"
    "key_file"
    "min_version"
    "server_name"
  ];
  proxy = same [
    "no_proxy"
    "proxy_connect_header"
    "proxy_from_environment"
    "proxy_url"
  ];
  scrape =
    same [
      "bearer_token"
      "bearer_token_file"
      "body_size_limit"
      "convert_classic_histograms_to_nhcb"
      "enable_compression"
      "enable_http2"
      "follow_redirects"
      "honor_labels"
      "honor_timestamps"
      "label_limit"
      "label_name_length_limit"
      "label_value_length_limit"
      "metrics_path"
      "native_histogram_bucket_limit"
      "native_histogram_min_bucket_factor"
      "params"
      "sample_limit"
      "scheme"
      "scrape_interval"
      "scrape_protocols"
      "scrape_timeout"
      "target_limit"
      "track_timestamps_staleness"
    ]
    // proxy
    // {
      always_scrape_classic_histograms = "scrape_classic_histograms";
      fallback_scrape_protocol = "scrape_fallback_protocol";
      authorization = same [
        "credentials"
        "credentials_file"
        "type"
      ];
      basic_auth = same [
        "password"
        "password_file"
        "username"
      ];
      oauth2 =
        same [
          "client_id"
          "client_secret"
          "client_secret_file"
          "endpoint_params"
          "scopes"
          "token_url"
        ]
        // proxy
        // {
          tls_config = tls;
        };
      tls_config = tls;
    };
  rule = same [
    "action"
    "modulus"
    "regex"
    "replacement"
    "separator"
    "source_labels"
    "target_label"
  ];
  # Of a job, beside the arguments of prometheus.scrape.
  own = [
    "file_sd_configs"
    "job_name"
    "metric_relabel_configs"
    "relabel_configs"
    "static_configs"
  ];

  # NixOS sets options without a value to null.
  given = set: removeAttrs set (filter (name: set.${name} == null) (attrNames set));
  listOf =
    name: job:
    let
      found = job.${name} or null;
    in
    if found == null then [ ] else found;

  # unknownIn : spec -> set -> [ string ]: the keys that Alloy does not have.
  unknownIn =
    spec: set:
    concatMap (
      name:
      if !(spec ? ${name}) then
        [ name ]
      else if isAttrs spec.${name} then
        map (inner: "${name}.${inner}") (unknownIn spec.${name} set.${name})
      else
        [ ]
    ) (attrNames (given set));

  # complaints : [ job ] -> [ string ]: what cannot be translated.
  complaints = concatMap (
    job:
    let
      rules = concatMap (name: map (one: unknownIn rule one) (listOf name job)) [
        "relabel_configs"
        "metric_relabel_configs"
      ];
      unknown = unknownIn scrape (removeAttrs job own) ++ concatMap (names: names) rules;
    in
    if unknown == [ ] then
      [ ]
    else
      [
        "scrape config '${toString (job.job_name or "?")}': Alloy's discovery.file and prometheus.scrape have no ${concatStringsSep ", " unknown}: write a component of Alloy for it in /etc/alloy"
      ]
  );

  # Strings, numbers and lists are as in JSON.
  value =
    any:
    if isList any then
      "[${concatStringsSep ", " (map value any)}]"
    else if isAttrs any then
      "{${concatStringsSep ", " (map (name: "${toJSON name} = ${value any.${name}}") (attrNames any))}}"
    else
      toJSON any;
  timeOf =
    text:
    let
      found = milliseconds text;
    in
    if found == null then
      throw "clan-discovery: ${toJSON text} is no duration: write for example 30s"
    else
      found;
  # Go has no days.
  duration =
    text: if match ".*[dwy].*" text == null then text else "${toString (floor (timeOf text))}ms";
  durations = [
    "scrape_interval"
    "scrape_timeout"
  ];

  indented = map (line: "  ${line}");
  block = header: lines: [ "${header} {" ] ++ indented lines ++ [ "}" ];
  # bodyOf : spec -> set -> [ line ]
  bodyOf =
    spec: set:
    concatMap (
      name:
      if isAttrs spec.${name} then
        block name (bodyOf spec.${name} set.${name})
      else
        [ "${spec.${name}} = ${value (if elem name durations then duration set.${name} else set.${name})}" ]
    ) (attrNames (intersectAttrs spec (given set)));
  rulesOf = concatMap (one: block "rule" (bodyOf rule one));

  # The samples that a scrape adds itself, which metric_relabel_configs does not change in Prometheus.
  added = {
    source_labels = [ "__name__" ];
    regex = "up|scrape_(body_size_bytes|duration_seconds|sample_limit|samples_post_metric_relabeling|samples_scraped|series_added|timeout_seconds)";
  };

  # Prometheus shortens the default timeout to the interval; Alloy refuses a longer one.
  timed =
    global: job:
    let
      times = {
        scrape_interval = "1m";
        scrape_timeout = "10s";
      }
      // given global
      // intersectAttrs { scrape_interval = null; } (given job);
      timeout = (given job).scrape_timeout or null;
    in
    if timeout != null && timeOf timeout > timeOf times.scrape_interval then
      throw "clan-discovery: scrape config '${job.job_name}': scrape_timeout ${timeout} is longer than scrape_interval ${times.scrape_interval}: lower the one or raise the other"
    else
      {
        inherit (times) scrape_interval;
        scrape_timeout =
          if timeOf times.scrape_timeout > timeOf times.scrape_interval then
            times.scrape_interval
          else
            times.scrape_timeout;
      }
      // given job;

  # fragmentOf : global -> [ string ] -> job -> [ line ]
  fragmentOf =
    global: forwardTo: job:
    let
      name = job.job_name;
      safe = labelSafe name;
      # A label is unique, and has letters, digits and underscores.
      label = "clan_${safe}${
        if safe == name then "" else "_${substring 0 8 (hashString "sha256" name)}"
      }";
      component = kind: prefix: "${kind} ${toJSON "${prefix}${label}"}";

      files = listOf "file_sd_configs" job;
      prefixOf = index: if index == 0 then "" else "file${toString index}_";
      fileOf =
        index: sd:
        block (component "discovery.file" (prefixOf index)) (
          [ "files = ${value sd.files}" ]
          ++ (
            if sd.refresh_interval or null == null then
              [ ]
            else
              [ "refresh_interval = ${value (duration sd.refresh_interval)}" ]
          )
        );
      static = concatMap (
        group:
        map (
          address: mapAttrs (_: toString) (given (group.labels or { })) // { __address__ = address; }
        ) group.targets
      ) (listOf "static_configs" job);
      sources =
        genList (index: "discovery.file.${prefixOf index}${label}.targets") (length files)
        ++ (if static == [ ] then [ ] else [ (value static) ]);
      targets =
        if sources == [ ] then
          "[]"
        else if length sources == 1 then
          head sources
        else
          "array.concat(${concatStringsSep ", " sources})";

      relabels = listOf "relabel_configs" job;
      # Prometheus sets the label before it relabels.
      setJob = {
        source_labels = [ "job" ];
        regex = "";
        target_label = "job";
        replacement = replaceStrings [ "$" ] [ "$$" ] name;
      };
      metricRelabels = listOf "metric_relabel_configs" job;
      receivers = "[${concatStringsSep ", " forwardTo}]";
      metricRelabel =
        prefix: rules:
        block (component "prometheus.relabel" prefix) ([ "forward_to = ${receivers}" ] ++ rulesOf rules);
    in
    concatMap (index: fileOf index (builtins.elemAt files index)) (
      genList (index: index) (length files)
    )
    ++ (
      if relabels == [ ] then
        [ ]
      else
        block (component "discovery.relabel" "") (
          [ "targets = ${targets}" ] ++ rulesOf ([ setJob ] ++ relabels)
        )
    )
    ++ block (component "prometheus.scrape" "") (
      [
        "targets = ${if relabels == [ ] then targets else "discovery.relabel.${label}.output"}"
        "job_name = ${toJSON name}"
        "forward_to = ${
          if metricRelabels == [ ] then
            receivers
          else
            "[prometheus.relabel.${label}.receiver, prometheus.relabel.added_${label}.receiver]"
        }"
      ]
      ++ bodyOf scrape (removeAttrs (timed global job) own)
    )
    ++ (
      if metricRelabels == [ ] then
        [ ]
      else
        metricRelabel "" ([ (added // { action = "drop"; }) ] ++ metricRelabels)
        ++ metricRelabel "added_" [ (added // { action = "keep"; }) ]
    );
in
{
  inherit complaints;

  # fragment : { jobs, forwardTo, global ? { } } -> string
  # `forwardTo` are receivers of Alloy, `global` has Prometheus's global `scrape_interval` and `scrape_timeout`.
  fragment =
    {
      jobs,
      forwardTo,
      global ? { },
    }:
    concatStringsSep "" (map (line: "${line}\n") (concatMap (fragmentOf global forwardTo) jobs));
}
