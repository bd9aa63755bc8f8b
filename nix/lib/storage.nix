# Where servers store samples: the flags and files that the programs of an engine must agree on. Python writes the same
# (`show --format storage`).
#
# A *storage* is { engine; mode; replicas; dedup; server; nodes = [ { name; host; port; readPort; } ]; writeUrl ? null; }.
# `dedup` is in milliseconds. `server` is the name of the server that writes.
{ service, known }:
let
  inherit (builtins)
    attrNames
    attrValues
    elem
    length
    map
    mapAttrs
    toJSON
    ;

  # replicasOf : string -> string -> int -> int: the default number of copies.
  replicasOf =
    engine: mode: nodes:
    let
      copies = if mode == "shard" then known.shard_replicas else known.engines.${engine}.replicas or nodes;
    in
    if copies < nodes then copies else nodes;

  # isRead : { engine ? ; mode ? ; } -> bool: whether a program reads the nodes as one.
  isRead =
    {
      engine ? "victoriametrics",
      mode ? "replicate",
      ...
    }:
    engine != "remote-write" && mode != "shard";

  endpoint =
    host: port: "${if service.isIpv6 host then "[${host}]" else host}:${toString port}";
  written = node: endpoint node.host node.port;
  read = node: endpoint node.host node.readPort;

  receiverLabel = "receive_replica";
  # The label that tells the samples of servers with the same targets apart.
  haLabel = "replica";
  dedupFlag = storage: "-dedup.minScrapeInterval=${toString storage.dedup}ms";

  # urlsOf : storage -> [ { name; url; } ]: where servers write.
  urlsOf =
    storage:
    if storage.writeUrl or null != null then
      [
        {
          name = "storage";
          url = storage.writeUrl;
        }
      ]
    else
      map (node: {
        inherit (node) name;
        url = "http://${written node}/api/v1/write";
      }) storage.nodes;

  # haLabelsOf : storage -> { <label> = string; }
  haLabelsOf = storage: if storage.engine == "thanos" then { ${haLabel} = storage.server; } else { };

  # remoteWrites : storage -> [ remote_write of Prometheus ]: with labels of written samples alone, because external labels
  # would be those of alerts, too. A label that a sample has stays.
  remoteWrites =
    storage:
    let
      labels = haLabelsOf storage;
      rules = map (name: {
        source_labels = [ name ];
        regex = "";
        target_label = name;
        replacement = labels.${name};
      }) (attrNames labels);
    in
    map (one: one // (if rules == [ ] then { } else { write_relabel_configs = rules; })) (urlsOf storage);

  isVictoria =
    storage:
    elem storage.engine [
      "victoriametrics"
      "victoriametrics-cluster"
    ];
in
{
  inherit
    dedupFlag
    haLabelsOf
    isRead
    remoteWrites
    replicasOf
    urlsOf
    ;

  # { <engine> = { write; read; replicas ? ; writer ? { port; path; }; }; }: the default ports of a node, for writes and for
  # queries; and of the program beside each server that takes its samples, if there is one.
  inherit (known) engines modes;
  # The least and the most that a dedup interval may be.
  dedupInterval = known.dedup_interval;

  # complaintsOf : { engine; mode; replicas; } -> int -> [ string ]: what no number of nodes can do.
  complaintsOf =
    {
      engine,
      mode,
      replicas,
    }:
    nodes:
    let
      optional = condition: text: if condition then [ text ] else [ ];
      said = toString replicas;
    in
    optional (mode == "shard" && engine != "victoriametrics")
      "mode: \"shard\" is for victoriametrics: ${engine} distributes the samples itself: remove it, or set another engine"
    ++
      optional (replicas > nodes)
        "replicas: ${said} copies need ${said} nodes, and there are ${toString nodes}: add nodes, or lower it"
    ++
      optional (replicas < nodes && engine == "victoriametrics" && mode == "replicate")
        "replicas is ${said}, and with mode = \"replicate\" each of the ${toString nodes} nodes gets every sample: remove it; or set `mode = \"shard\"`, or the engine victoriametrics-cluster"
    ++
      optional (replicas < nodes && engine == "remote-write")
        "replicas is ${said}, and each of the ${toString nodes} nodes gets every sample: replication inside is the engine's: remove it";

  # nodeFlags : storage -> node -> [ string ]: of the program on a node.
  nodeFlags =
    storage: node:
    if isVictoria storage then
      [ (dedupFlag storage) ]
    else if storage.engine == "thanos" then
      [
        "--receive.local-endpoint=${read node}"
        "--receive.hashrings-algorithm=ketama"
        "--receive.replication-factor=${toString storage.replicas}"
        "--label=${receiverLabel}=${toJSON node.name}"
      ]
    else
      [ ];

  # vmagentFlags : storage -> [ string ]
  vmagentFlags =
    storage:
    map (one: "-remoteWrite.url=${one.url}") (urlsOf storage)
    ++ (
      if storage.mode == "shard" then
        [
          "-remoteWrite.shardByURL"
          "-remoteWrite.shardByURLReplicas=${toString storage.replicas}"
        ]
      else
        [ ]
    )
    ++ (
      if isVictoria storage then
        [ ]
      else
        [
          # Others refuse samples that are older than the newest one, which concurrent queues would send, and labels that
          # are not sorted. So there is no -remoteWrite.label: vmagent 1.131 appends it to sorted labels.
          "-remoteWrite.queues=1"
          "-sortLabels"
          "-remoteWrite.forcePromProto"
        ]
    );

  vminsertFlags =
    storage:
    map (node: "-storageNode=${written node}") storage.nodes
    ++ [ "-replicationFactor=${toString storage.replicas}" ];
  vmselectFlags =
    storage:
    map (node: "-storageNode=${read node}") storage.nodes
    ++ [
      "-replicationFactor=${toString storage.replicas}"
      (dedupFlag storage)
    ];

  # queryFlags : storage -> bool -> [ string ]: of Thanos; `twice`: several servers scrape a target.
  queryFlags =
    storage: twice:
    map (node: "--endpoint=${read node}") storage.nodes
    ++ map (label: "--query.replica-label=${label}") [
      receiverLabel
      haLabel
    ]
    ++ (if twice then [ ] else [ "--deduplication.func=chain" ]);

  # hashring : storage -> the value of Thanos's hashring file
  hashring = storage: [
    {
      hashring = "default";
      algorithm = "ketama";
      endpoints = map (node: { address = read node; }) storage.nodes;
    }
  ];

  # proxy : storage -> the value of vmauth's config: it reads VictoriaMetrics, or writes to Thanos.
  proxy =
    storage:
    let
      urls = map (node: "http://${written node}/") storage.nodes;
      inherit (known) retry_status_codes;
    in
    if storage.engine == "thanos" then
      {
        unauthorized_user = {
          url_map = [
            {
              src_paths = [ known.engines.thanos.writer.path ];
              url_prefix = urls;
            }
          ];
          inherit retry_status_codes;
        };
      }
    else
      {
        unauthorized_user = {
          url_map = [
            {
              # A write would reach one node alone.
              src_paths = known.read_paths;
              url_prefix = urls;
            }
          ];
          # A node that was down lacks samples until vmagent has caught up, and answers of two nodes would differ.
          load_balancing_policy = "first_available";
          inherit retry_status_codes;
        };
      };
}
