# The settings of the prometheus service that an evaluation needs: exporters, ports, and what to refuse. Python computes
# the targets from the same settings (`inventory/clan/service.py`).
{ exporters }:
let
  webConfigTypes = import ./web-config-types.nix;

  inherit (builtins)
    all
    attrNames
    concatMap
    elem
    elemAt
    filter
    foldl'
    fromJSON
    genList
    head
    isAttrs
    isBool
    isList
    isString
    length
    map
    match
    removeAttrs
    split
    stringLength
    toJSON
    ;

  optional = condition: value: if condition then [ value ] else [ ];
  orElse = fallback: value: if value == null then fallback else value;
  # An option that is null is not set.
  set = orElse { };
  # Anything but an attribute set is reported elsewhere and counts as empty.
  asSet = value: if isAttrs value then value else { };

  # Settings for the scraper, not options of a NixOS exporter.
  scrapeWords = [
    "labels"
    "module"
    "params"
    "path"
    "scheme"
    "target"
  ];
  # Options of NixOS's exporters that hold the path.
  pathWords = [
    "path"
    "telemetryPath"
    "metricsEndpoint"
    "metricsPath"
  ];
  # Settings of the machine, for all its exporters.
  ownWords = [
    "expose"
    "firewallInterfaces"
    "limits"
    "listen"
    "needs"
    "securityFiles"
    "units"
  ];
  # Settings of the role itself.
  exporterWords =
    scrapeWords
    ++ ownWords
    ++ [
      "enable"
      "exporterType"
      "exporters"
      "port"
      "security"
    ];
  # Settings of the server role; all others belong to the backend.
  serverWords = [
    "additionalScrapeConfigs"
    "alerts"
    "backend"
    "discoveryMethod"
    "dnsDiscovery"
    "enable"
    "enableAutoDiscovery"
    "endpoints"
    "firewallInterfaces"
    "forwardTo"
    "jobs"
    "mode"
    "policy"
    "replicas"
    "scrapeServers"
    "securityFiles"
    "shardState"
    "shardWeight"
    "sharding"
    "snapshot"
    "staticTargets"
    "verifyInterval"
    "web"
  ];

  # isLoopback : any -> bool: an address that no other machine can reach.
  isLoopback = text: isString text && match "localhost|127\\.[0-9.]+|\\[?::1]?" text != null;

  # exporterOf : string -> settings -> { type, port, nixos, idle, loopback, security, options }
  # `port` is null if it is unknown. `idle`: a probe without a target. `loopback`: no server can scrape it. `options`: other
  # settings for NixOS's module of this exporter.
  exporterOf =
    type: settings:
    let
      known = exporters.${type} or { };
      params = set (settings.params or null);
    in
    {
      inherit type;
      port = orElse (known.port or null) (settings.port or null);
      nixos = known.nixos or false;
      idle =
        (known.kind or "plain") == "probe"
        && settings.target or null == null
        && params.target or null == null
        && params.script or null == null;
      loopback = isLoopback (settings.listenAddress or null);
      security = orElse "none" (settings.security or null);
      options = removeAttrs settings exporterWords;
    };

  # exportersOf : settings -> [ exporter ]
  # `exporterType` with the settings beside it, and every one of `exporters`. Default: node.
  exportersOf =
    settings:
    let
      many = settings.exporters or { };
      isOn = one: one.enable or null != false;
      fallback = if many == { } then "node" else null;
      alone = orElse fallback (settings.exporterType or null);
    in
    optional (alone != null && isOn settings) (exporterOf alone settings)
    ++ map (
      type:
      exporterOf type (
        many.${type}
        // {
          security = orElse (settings.security or null) (many.${type}.security or null);
        }
      )
    ) (filter (type: isOn many.${type}) (attrNames many));

  isJob = name: isString name && match "[A-Za-z0-9_][A-Za-z0-9_.:-]{0,199}" name != null;
  # isLabel : string -> bool
  # Whether every version of Prometheus accepts the label name.
  isLabel = name: match "[a-zA-Z_][a-zA-Z0-9_]*" name != null;
  jobComplaints =
    names:
    map (name: "'${toString name}' cannot be the name of a job: letters, digits, '_', '-', '.'") (
      filter (name: !isJob name) names
    );

  # milliseconds : any -> float | null
  # Reads a duration of Prometheus. Floats, because 18 digits would overflow an integer.
  milliseconds =
    text:
    let
      units = [
        31536000000.0
        604800000.0
        86400000.0
        3600000.0
        60000.0
        1000.0
        1.0
      ];
      number = unit: "(([0-9]{1,18})${unit})?";
      pattern = "${number "y"}${number "w"}${number "d"}${number "h"}${number "m"}${number "s"}${number "ms"}";
      found = if isString text && text != "" then match pattern text else null;
      # JSON has no leading zeros.
      digits =
        index:
        let
          given = elemAt found (2 * index + 1);
        in
        if given == null then 0 else fromJSON (head (match "0*([0-9]+)" given));
    in
    if found == null then
      null
    else
      foldl' (sum: index: sum + digits index * elemAt units index) 0.0 (genList (index: index) 7);

  # labelComplaints : { <name> = string; } -> [ string ]
  # What Python refuses in the user's labels (`syntax/labels.py`).
  labelComplaints =
    given:
    let
      labels = removeAttrs given (filter (name: given.${name} == null) (attrNames given));
      free = [
        "__scrape_interval__"
        "__scrape_timeout__"
      ];
      reserved = match "instance|job|machine|__.*";
      isBad = name: !isLabel name || (reserved name != null && !elem name free);
      given' = filter (name: labels ? ${name}) free;
      one = value: if isList value && length value == 1 then head value else value;
      time = name: milliseconds (one labels.${name});
      longest = 292 * 31536000000.0;
      isTime =
        name:
        let
          found = time name;
        in
        found != null && found >= 1 && found <= longest;
      said = name: "${name} = ${toJSON (one labels.${name})}";
      together = "__scrape_interval__ and __scrape_timeout__ come together";
    in
    map (name: "the label '${name}' cannot be set: it is no label name, or not yours to give") (
      filter isBad (attrNames labels)
    )
    ++ optional (length given' == 1) "${together}: set both"
    ++ map (name: "${together}: ${said name} is no duration like 30s, from 1ms to 292y") (
      filter (name: length given' == 2 && !isTime name) free
    )
    ++ optional (
      length given' == 2 && all isTime free && time "__scrape_timeout__" > time "__scrape_interval__"
    ) "${together}: ${said "__scrape_timeout__"} must not be longer than ${said "__scrape_interval__"}";

  # complaintsOfOne : string -> settings -> [ string ]: what Python refuses in the settings of one exporter.
  complaintsOfOne =
    type: settings:
    let
      labels = asSet (settings.labels or null);
      params = asSet (settings.params or null);
      isProbe = (exporters.${type}.kind or "plain") == "probe";
      isOne =
        value:
        value == null || isString value || (isList value && length value == 1 && isString (head value));
      isBadPath =
        word:
        settings.${word} or null != null
        && (!isString settings.${word} || match "/[^?#]*" settings.${word} == null);
    in
    jobComplaints [ type ]
    ++
      optional ((exporterOf type settings).port == null)
        "unknown exporter type '${type}' without a `port`: use a name of services.prometheus.exporters, or set `port`"
    ++ optional ((settings.port or null) == 0) "invalid port 0: must be 1 to 65535"
    ++ map (word: "`${word}` must be an attribute set of strings") (
      filter (word: settings.${word} or null != null && !isAttrs settings.${word}) [
        "labels"
        "params"
      ]
    )
    ++ labelComplaints labels
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
    ++ map (word: "`${word}` must be a string") (
      filter (word: isProbe && settings.${word} or null != null && !isString settings.${word}) [
        "target"
        "module"
      ]
    )
    ++ map (
      word:
      "`${word}` is no path: it starts with a slash, and what follows a question mark goes into `params`"
    ) (filter isBadPath pathWords);

  # securityComplaints : string -> exporter -> settings -> [ string ]
  # `place` is the prefix of the exporter's settings.
  securityComplaints =
    place: exporter: settings:
    optional (exporter.security != "none" && !elem exporter.type webConfigTypes)
      "`security` is ${toJSON exporter.security}, but the exporter ${exporter.type} has no web config file: set ${place}security = \"none\""
    ++ optional (
      exporter.security == "tls" && settings.scheme or null == "http"
    ) "`scheme` is http, but `security` is \"tls\": remove `scheme`";

  enableComplaints =
    settings:
    optional (
      settings.enable or null != null && !isBool settings.enable
    ) "`enable` must be true or false";

  # complaintsOf : settings -> [ string ]: of a member of the role exporter.
  complaintsOf =
    settings:
    let
      many = settings.exporters or { };
      type = settings.exporterType or null;
    in
    concatMap (
      exporter:
      let
        said = many.${exporter.type} or settings;
      in
      complaintsOfOne exporter.type said
      ++ securityComplaints (
        if many ? ${exporter.type} then "exporters.${exporter.type}." else ""
      ) exporter said
    ) (exportersOf settings)
    ++ enableComplaints settings
    ++ concatMap (
      name:
      map (word: "exporters.${name}.${word} does not belong here: the type is '${name}'") (
        filter
          (
            word:
            !elem (many.${name}.${word} or null) [
              null
              name
            ]
          )
          [
            "exporterType"
            "exporters"
          ]
      )
    ) (attrNames many)
    ++ concatMap (
      name:
      map (
        word: "exporters.${name}.${word} is not read: it is a setting of the machine, beside `exporters`"
      ) (filter (word: many.${name}.${word} or null != null) ownWords)
    ) (attrNames many)
    ++ optional (
      type != null && many ? ${toString type}
    ) "${type} is set by `exporterType` and by `exporters.${type}`: remove one";

  # unreadIn : settings -> [ string ]: settings for one exporter, where `exporters` declares all of them.
  unreadIn =
    settings:
    let
      others = removeAttrs settings (
        ownWords
        ++ [
          "enable"
          "exporterType"
          "exporters"
          "security"
        ]
      );
      isSaid =
        name:
        !elem others.${name} [
          null
          { }
          [ ]
        ];
    in
    if settings.exporterType or null != null || settings.exporters or { } == { } then
      [ ]
    else
      filter isSaid (attrNames others) ++ optional (settings.enable or null == false) "enable";

  # serverComplaintsOf : settings -> { <type> = settings; } -> [ string ]
  # `configured` is `exporters` of the config, which may set a target's port and a probe's target.
  serverComplaintsOf =
    settings: configured:
    let
      said = settings.discoveryMethod or null;
      static = settings.staticTargets or { };
      isTarget =
        job: text:
        let
          found = splitEndpoint text;
          own = configured.${job} or { };
          exporter = exporterOf job (own // { port = orElse (own.port or null) found.port; });
        in
        found != null && exporter.port != null && !exporter.idle;
    in
    enableComplaints settings
    ++ optional ((settings.port or null) == 0) "port: invalid port 0: must be 1 to 65535"
    ++ optional (
      isList said && elem "none" said && methodsOf settings != [ ]
    ) "discoveryMethod: \"none\" cannot be combined with other methods"
    ++ jobComplaints (attrNames static ++ attrNames (settings.dnsDiscovery or { }))
    ++ concatMap (
      job:
      map (
        text:
        "staticTargets.${job}: '${text}' is no target: write host:port${
          if (exporterOf job (configured.${job} or { })).idle then
            ", and set exporters.${job}.params.target in services.clan-discovery.settings"
          else
            ""
        }"
      ) (filter (text: !isTarget job text) static.${job})
    ) (attrNames static);

  # methodsOf : settings -> [ string ]
  methodsOf =
    settings:
    let
      said = orElse [ ] (settings.discoveryMethod or null);
    in
    filter (method: method != "none") (if isList said then said else [ said ]);

  # The port on which a server serves its own metrics. Alloy's is on loopback.
  ownPorts = {
    alloy = null;
    prometheus = 9090;
    victoriametrics = 8428;
    vmagent = 8429;
  };
  serverPort = settings: orElse ownPorts.${settings.backend or "prometheus"} (settings.port or null);

  # isServer : settings -> bool: not if the settings have `enable = false`.
  isServer = settings: settings.enable or null != false;

  # scrapesServers : settings -> bool
  # False if a job of the user has that name, or if the server listens on loopback only, as Alloy does.
  scrapesServers =
    settings:
    let
      jobs = (settings.additionalScrapeConfigs or [ ]) ++ (settings.scrapeConfigs or [ ]);
    in
    isServer settings
    && settings.scrapeServers or false
    && settings.backend or null != "alloy"
    && filter (job: isAttrs job && (job.job_name or null) == "prometheus") jobs == [ ]
    && !isLoopback (settings.listenAddress or null);

  # isIpv6 : string -> bool: eight groups, or fewer around one `::`; the last two may be an IPv4 address. No zone.
  isIpv6 =
    text:
    let
      octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
      mixed = match "(.*:)${octet}\\.${octet}\\.${octet}\\.${octet}" text;
      halves = filter isString (split "::" (if mixed == null then text else "${head mixed}0:0"));
      groups = concatMap (half: if half == "" then [ ] else filter isString (split ":" half)) halves;
    in
    all (group: match "[0-9a-fA-F]{1,4}" group != null) groups
    && (if length halves == 2 then length groups < 8 else length halves == 1 && length groups == 8);

  # splitEndpoint : string -> { host, port or null } or null
  # Reads `host`, `host:port`, `[v6]`, `[v6]:port` and a bare IPv6 address, as Python does (syntax/endpoint.py).
  splitEndpoint =
    text:
    let
      label = "[A-Za-z0-9_][A-Za-z0-9_-]{0,62}";
      name = match "(${label}(\\.${label})*\\.?)(:([0-9]{1,5}))?" text;
      bracketed = match "\\[([^]]*)](:([0-9]{1,5}))?" text;
      # The host, and the port as text.
      found =
        if isIpv6 text then
          [
            text
            null
          ]
        else if name != null && stringLength (head name) <= 253 then
          [
            (head name)
            (elemAt name 3)
          ]
        else if bracketed != null && isIpv6 (head bracketed) then
          [
            (head bracketed)
            (elemAt bracketed 2)
          ]
        else
          null;
      digits = elemAt found 1;
      # JSON has no leading zeros.
      port = if digits == null then null else fromJSON (head (match "0*([0-9]+)" digits));
    in
    if found == null || (port != null && (port < 1 || port > 65535)) then
      null
    else
      {
        host = head found;
        inherit port;
      };
in
{
  inherit
    complaintsOf
    exportersOf
    isJob
    isLabel
    isIpv6
    isLoopback
    isServer
    labelComplaints
    methodsOf
    milliseconds
    ownPorts
    pathWords
    scrapeWords
    scrapesServers
    serverComplaintsOf
    serverPort
    serverWords
    splitEndpoint
    unreadIn
    ;
}
