# The vocabulary of the prometheus service: merged settings of a role become exporters, or a server's wishes. Python's
# `inventory/service.py` reads the same words; `tests/test_nix_truth.py` holds the two together.
{ exporters, host }:
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    elem
    elemAt
    filter
    fromJSON
    head
    isAttrs
    isList
    isString
    length
    listToAttrs
    map
    match
    removeAttrs
    ;

  optional = condition: value: if condition then [ value ] else [ ];
  firstOf = values: fallback: head (filter (v: v != null) values ++ [ fallback ]);

  # Words of the scraping side: no NixOS option of an exporter.
  scrapeWords = [
    "labels"
    "module"
    "params"
    "path"
    "scheme"
    "target"
  ];
  # Where NixOS's exporters keep the path, the first that is said.
  pathWords = [
    "path"
    "telemetryPath"
    "metricsEndpoint"
    "metricsPath"
  ];
  # Words of the role itself.
  exporterWords = scrapeWords ++ [
    "enable"
    "exporterType"
    "exporters"
    "firewallInterfaces"
    "port"
  ];
  # Words of the server role; everything else is the backend's.
  serverWords = [
    "additionalScrapeConfigs"
    "backend"
    "discoveryMethod"
    "dnsDiscovery"
    "enableAutoDiscovery"
    "firewallInterfaces"
    "mode"
    "policy"
    "scrapeServers"
    "sharding"
    "staticTargets"
  ];

  # lookup : string -> int or null -> { port, path, params, kind, nixos } or null
  # Null where nobody knows the type, and no port is given.
  lookup =
    type: port:
    let
      known = exporters.${type} or null;
    in
    if known != null then
      known // (if port == null then { } else { inherit port; })
    else if port == null then
      null
    else
      {
        inherit port;
        path = "/metrics";
        params = { };
        kind = "plain";
        nixos = false;
      };

  # A parameter is one string, or a list of one, as Prometheus writes them.
  one = value: if isList value then head value else value;
  strings =
    attrs:
    if attrs == null then
      { }
    else
      listToAttrs (
        concatMap (
          name:
          # What is none is told by `complaintsOf`, and is nowhere else.
          optional (attrs.${name} != null && isOne attrs.${name}) {
            inherit name;
            value = one attrs.${name};
          }
        ) (attrNames attrs)
      );
  given =
    names: settings:
    strings (
      listToAttrs (
        map (name: {
          inherit name;
          value = settings.${name} or null;
        }) names
      )
    );

  # exporterOf : string -> settings -> exporter
  # `port` is null where nobody knows it. `idle`: a probe that nobody told what to probe is no target.
  exporterOf =
    type: settings:
    let
      base = lookup type (settings.port or null);
      probe = base != null && base.kind == "probe";
      params =
        (if base == null then { } else base.params)
        // strings (settings.params or null)
        // (if probe then given [ "target" "module" ] settings else { });
    in
    {
      inherit type params;
      port = if base == null then null else base.port;
      path = firstOf (map (word: settings.${word} or null) pathWords) (
        if base == null then "/metrics" else base.path
      );
      scheme = firstOf [ (settings.scheme or null) ] "http";
      labels = strings (settings.labels or null);
      nixos = base != null && base.nixos;
      idle = probe && !(params ? target || params ? script);
      # What NixOS's module of this exporter is told, but for the port.
      options = removeAttrs settings exporterWords;
    };

  # exportersOf : settings -> [ exporter ]
  # `exporterType` with the settings beside it, and every one of `exporters`. Where neither is given, it is node.
  exportersOf =
    settings:
    let
      many = settings.exporters or { };
      wanted = filter (type: many.${type}.enable or null != false) (attrNames many);
      type = settings.exporterType or null;
      alone =
        if type != null then
          type
        else if many == { } then
          "node"
        else
          null;
      on = settings.enable or null != false;
    in
    optional (alone != null && on) (exporterOf alone settings)
    ++ map (type: exporterOf type many.${type}) wanted;

  # twiceOf : settings -> [ string ]: the type that `exporterType` and `exporters` both give.
  twiceOf =
    settings:
    let
      type = settings.exporterType or null;
    in
    optional (type != null && (settings.exporters or { }) ? ${toString type}) type;

  isJob = name: isString name && match "[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}" name != null;
  isLabel = name: match "[a-zA-Z_][a-zA-Z0-9_]*" name != null;
  stated = attrs: if attrs == null then { } else attrs;
  isOne =
    value:
    value == null || isString value || (isList value && length value == 1 && isString (head value));

  # complaintsOfOne : string -> settings -> [ string ]: what Python refuses in the settings of one exporter, too.
  complaintsOfOne =
    type: settings:
    let
      labels = stated (settings.labels or null);
      params = stated (settings.params or null);
      reserved =
        name:
        elem name [
          "instance"
          "job"
          "machine"
        ]
        || (
          match "__.*" name != null
          && !elem name [
            "__scrape_interval__"
            "__scrape_timeout__"
          ]
        );
      paths = filter (word: settings.${word} or null != null) pathWords;
    in
    optional (
      !isJob type
    ) "'${toString type}' cannot be the name of a job: letters, digits, '_', '-', '.'"
    ++
      optional ((exporterOf type settings).port == null)
        "unknown exporter type '${type}', and no `port`: take a name of services.prometheus.exporters, or give the port on which it serves"
    ++ optional ((settings.port or null) == 0) "0 is no port"
    ++ map (name: "the label '${name}' cannot be set: it is no label name, or not yours to give") (
      filter (name: !isLabel name || reserved name) (attrNames labels)
    )
    ++ map (
      name: "the parameter '${name}' cannot be written as a label: set it in a scrape config of yours"
    ) (filter (name: !isLabel "__param_${name}") (attrNames params))
    ++ map (name: "'${name}' must be one string") (
      filter (name: !isOne labels.${name}) (attrNames labels)
      ++ filter (name: !isOne params.${name}) (attrNames params)
    )
    ++ optional (
      !elem (settings.scheme or null) [
        null
        "http"
        "https"
      ]
    ) "`scheme` is http or https"
    ++ map (
      word:
      "`${word}` is no path: it starts with a slash, and what follows a question mark goes into `params`"
    ) (filter (word: !isString settings.${word} || match "/[^?#]*" settings.${word} == null) paths);

  # complaintsOf : settings -> [ string ]: of a member of the role exporter.
  complaintsOf =
    settings:
    let
      many = settings.exporters or { };
    in
    concatMap (exporter: complaintsOfOne exporter.type (many.${exporter.type} or settings)) (
      exportersOf settings
    )
    ++ map (type: "${type} is given by `exporterType` and by `exporters.${type}`: take one away") (
      twiceOf settings
    );

  # serverComplaintsOf : settings -> [ string ]
  serverComplaintsOf =
    settings:
    let
      said = settings.discoveryMethod or null;
      jobs = attrNames (settings.staticTargets or { }) ++ attrNames (settings.dnsDiscovery or { });
    in
    optional (
      isList said && elem "none" said && methodsOf settings != [ ]
    ) "discoveryMethod asks somebody and nobody: take \"none\" out"
    ++ map (job: "'${job}' cannot be the name of a job: letters, digits, '_', '-', '.'") (
      filter (job: !isJob job) jobs
    )
    ++
      map (endpoint: "staticTargets.${endpoint.job}: '${endpoint.text}' is no target: write host:port")
        (filter (endpoint: endpoint.host == null || endpoint.exporter.port == null) (endpointsOf settings));

  # methodsOf : settings -> [ string ]
  methodsOf =
    settings:
    let
      said = settings.discoveryMethod or null;
    in
    filter (method: method != "none") (
      if said == null then
        [ ]
      else if isList said then
        said
      else
        [ said ]
    );

  # The port on which a server serves its own metrics.
  ownPorts = {
    prometheus = 9090;
    victoriametrics = 8428;
    vmagent = 8429;
  };
  serverPort =
    settings: firstOf [ (settings.port or null) ] ownPorts.${settings.backend or "prometheus"};

  # serverExporter : settings -> exporter: a server as a target of the others, and of itself.
  # Prometheus serves below the path of its external URL (cmd/prometheus/main.go, web.route-prefix).
  serverExporter =
    settings:
    let
      url = settings.webExternalUrl or null;
      prefix =
        if isString url && (settings.backend or "prometheus") == "prometheus" then
          match "([a-z]+://[^/]*)?(/[^?#]*[^/?#])/*" url
        else
          null;
      plain = exporterOf "prometheus" { port = serverPort settings; };
    in
    if prefix == null then plain else plain // { path = elemAt prefix 1 + plain.path; };

  # scrapesServers : settings -> bool
  # A job of the user's own of that name goes before ours; one that listens on the loopback alone is nobody's target.
  scrapesServers =
    settings:
    let
      listen = settings.listenAddress or null;
      jobs = (settings.additionalScrapeConfigs or [ ]) ++ (settings.scrapeConfigs or [ ]);
    in
    settings.scrapeServers or false
    && filter (job: isAttrs job && (job.job_name or null) == "prometheus") jobs == [ ]
    && !(isString listen && match "localhost|127\\.[0-9.]+|\\[?::1]?" listen != null);

  # splitEndpoint : string -> { host, port or null } or null
  # Reads `host`, `host:port`, `[v6]`, `[v6]:port` and a bare IPv6 address.
  splitEndpoint =
    text:
    let
      v6 = match "\\[([0-9a-fA-F:.]+)](:([0-9]{1,5}))?" text;
      plain = match "([^:]*)(:([0-9]{1,5}))?" text;
      found =
        if v6 != null && host.isV6 (head v6) then
          v6
        else if host.isV6 text then
          [
            text
            null
            null
          ]
        else if plain != null && host.isHost (head plain) then
          plain
        else
          null;
      port =
        if found == null || elemAt found 2 == null then null else fromJSON (decimal (elemAt found 2));
    in
    if found == null || (port != null && (port < 1 || port > 65535)) then
      null
    else
      {
        host = head found;
        inherit port;
      };
  # JSON has no number with a zero before it.
  decimal =
    digits:
    let
      trimmed = match "0*([0-9]+)" digits;
    in
    head trimmed;

  # endpointsOf : settings -> [ { job, text, host, exporter } ]
  # The targets that are written down; `host` is null where the text is none, `exporter.port` where it has no port.
  endpointsOf =
    settings:
    concatLists (
      map (
        job:
        map (
          text:
          let
            split = splitEndpoint text;
          in
          {
            inherit job text;
            host = if split == null then null else split.host;
            exporter = exporterOf job { port = if split == null then null else split.port; };
          }
        ) settings.staticTargets.${job}
      ) (attrNames (settings.staticTargets or { }))
    );
in
{
  inherit
    complaintsOf
    endpointsOf
    exportersOf
    methodsOf
    ownPorts
    scrapeWords
    scrapesServers
    serverComplaintsOf
    serverExporter
    serverPort
    serverWords
    splitEndpoint
    ;
}
