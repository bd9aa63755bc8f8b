# `services.clan-discovery.storage`: a node that stores samples, what servers write with, and what reads the nodes as one.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (lib) mkDefault mkIf;
  cd = import ../../lib;
  inherit (config.services) prometheus vmagent;
  own = config.services.clan-discovery.storage;
  inherit (own) engine;
  inherit (import ../front/unit.nix) hardening;
  unit = import ./unit.nix { inherit lib hardening; };

  nodes = lib.mapAttrsToList (name: node: node // { inherit name; }) own.nodes;
  self = own.nodes.${own.node} // {
    name = own.node;
  };
  isNode = own.node != null && own.nodes ? ${own.node};
  hasReadPort = with cd.storage.engines.${engine}; read != write;
  # Of engines whose nodes get samples from a program beside each server.
  writeUrl =
    {
      thanos = "http://127.0.0.1:${toString own.proxyPort}${writer.path}";
      victoriametrics-cluster = "http://127.0.0.1:${toString insertPort}${writer.path}";
    }
    .${engine} or null;
  inherit (cd.storage.engines.${engine}) writer;
  insertPort = writer.port;
  selectPort = 8481;
  queryPort = 10904;
  storage = {
    inherit engine nodes writeUrl;
    inherit (own) mode;
    server = config.services.clan-discovery.machine;
    dedup = builtins.floor (orZero (cd.service.milliseconds own.dedupInterval));
    replicas =
      if own.replicas != null then
        own.replicas
      else
        cd.storage.replicasOf engine own.mode (lib.length nodes);
  };
  orZero = value: if value == null then 0 else value;
  labels = cd.storage.haLabelsOf storage;

  listen =
    port:
    "${
      if cd.service.isIpv6 own.listenAddress then "[${own.listenAddress}]" else own.listenAddress
    }:${toString port}";
  json = pkgs.formats.json { };
  escaped = map (
    flag: lib.replaceStrings [ "\\" "\"" "%" ] [ "\\\\" "\\\"" "%%" ] flag
  );

  writes = own.writes && nodes != [ ];
  reads = own.reads && nodes != [ ];
  usesProxy =
    reads && engine == "victoriametrics" && cd.storage.isRead own
    || writes && engine == "thanos";
  hasThanos = options.services ? thanos;
  usesPrometheus = writes && prometheus.enable;
  usesVmagent = writes && vmagent.enable;
  flags = cd.storage.vmagentFlags storage;
  firstUrl = (lib.head (cd.storage.urlsOf storage)).url;

  refusal = message: {
    assertion = false;
    message = "services.clan-discovery.storage${message}";
  };
  refuseIf = condition: message: lib.optional condition (refusal message);
  placeOf = node: "${node.host}:${toString node.port}";
  bounds = cd.storage.dedupInterval;
  isDuration =
    let
      given = cd.service.milliseconds own.dedupInterval;
    in
    given != null
    && given >= cd.service.milliseconds bounds.least
    && given <= cd.service.milliseconds bounds.most;
  scraper = import ../scraper.nix { inherit lib cd; };
  portOf = url: lib.toInt (lib.head (builtins.match "http://.*:([0-9]+)(/.*)?" url));
  # Removed exporters are still options, without `enable`. Only those that are set are read: each is an evaluation.
  exporters = lib.filter (name: prometheus.exporters.${name}.enable or false) (
    lib.concatMap lib.attrNames options.services.prometheus.exporters.definitions
  );
  # On which ports programs of this machine listen, on every address or on loopback.
  taken =
    lib.optional vmagent.enable (portOf (scraper.own { backend = "vmagent"; } config).url)
    ++ map (name: prometheus.exporters.${name}.port) exporters
    ++
    lib.optional usesProxy own.proxyPort
    ++ lib.optional (writes && engine == "victoriametrics-cluster") insertPort
    ++ lib.optional (reads && engine == "victoriametrics-cluster") selectPort
    ++ lib.optional (reads && engine == "thanos") queryPort
    ++ lib.optional prometheus.enable prometheus.port
    ++ lib.optional (engine == "thanos") 10902;
  ports = lib.unique [
    self.port
    self.readPort
  ];
  cluster = "${own.clusterPackage}/bin";

  # `storage` of the config.
  told = {
    inherit engine;
    inherit (own) mode;
    inherit (storage) replicas;
    nodes = lib.mapAttrs (
      _: node:
      {
        address = node.host;
        inherit (node) port;
      }
      // lib.optionalAttrs hasReadPort { read_port = node.readPort; }
    ) own.nodes;
  }
  // lib.optionalAttrs (own.dedupInterval != "1ms") { dedup_interval = own.dedupInterval; }
  // lib.optionalAttrs (writeUrl != null) { write_url = writeUrl; };
  # The programs here do not read it.
  settings = config.services.clan-discovery.settings.storage;
  unheard = lib.filter (key: settings.${key} or null != told.${key} or null) (
    lib.attrNames (told // settings)
  );
in
{
  options.services.clan-discovery.storage = import ./options.nix { inherit lib cd config; };

  config = lib.mkMerge [
    {
      services.clan-discovery.storage.url =
        if !reads || !cd.storage.isRead own then
          null
        else
          {
            thanos = "http://127.0.0.1:${toString queryPort}";
            victoriametrics-cluster = "http://127.0.0.1:${toString selectPort}/select/0/prometheus";
            victoriametrics = "http://127.0.0.1:${toString own.proxyPort}";
          }
          .${engine};
    }

    # `show` and the check of the build see what this module does.
    {
      services.clan-discovery.settings.storage = mkIf writes (lib.mapAttrsRecursive (_: mkDefault) told);
    }

    # The nodes
    (mkIf (isNode && engine == "victoriametrics") {
      services.victoriametrics = {
        enable = mkDefault true;
        listenAddress = mkDefault (listen self.port);
        retentionPeriod = mkDefault own.retentionTime;
        extraOptions = cd.storage.nodeFlags storage self ++ [
          "-enableTCP6"
          # A busy store loses nothing that it has acknowledged when it stops.
          "-http.maxGracefulShutdownDuration=1m"
        ];
      };
    })
    (mkIf (isNode && engine == "victoriametrics-cluster") {
      systemd.services.vmstorage = unit.service {
        description = "VictoriaMetrics cluster: storage";
        state = "vmstorage";
        command = [
          "${cluster}/vmstorage"
          "-storageDataPath=/var/lib/vmstorage"
          "-retentionPeriod=${own.retentionTime}"
          "-vminsertAddr=${listen self.port}"
          "-vmselectAddr=${listen self.readPort}"
          "-httpListenAddr=127.0.0.1:8482"
          "-enableTCP6"
        ]
        ++ cd.storage.nodeFlags storage self;
      };
    })
    (lib.optionalAttrs hasThanos (
      mkIf (isNode && engine == "thanos") {
        services.thanos.receive = {
          enable = mkDefault true;
          # Its options lack those of the hashring.
          arguments = escaped (
            [
              "--remote-write.address=${listen self.port}"
              "--grpc-address=${listen self.readPort}"
              "--http-address=127.0.0.1:10902"
              "--tsdb.path=/var/lib/${config.services.thanos.receive.stateDir or "thanos-receive"}"
              "--tsdb.retention=${own.retentionTime}"
              "--receive.hashrings-file=${json.generate "thanos-hashring.json" (cd.storage.hashring storage)}"
            ]
            ++ cd.storage.nodeFlags storage self
          );
        };
      }
    ))

    # What servers write with
    (mkIf usesPrometheus {
      services.prometheus.remoteWrite = cd.storage.remoteWrites storage;
    })
    (mkIf usesVmagent {
      services.vmagent = {
        # With it, NixOS sets the directory of the queue.
        remoteWrite.url = lib.mkOverride 1100 firstUrl;
        extraArgs = [
          # Addresses of overlay networks are mostly IPv6, which it does not dial by default.
          "-enableTCP6"
        ]
        ++ (
          if vmagent.remoteWrite.url == firstUrl then
            lib.remove "-remoteWrite.url=${firstUrl}" flags
          else
            flags
        );
        prometheusConfig.global.external_labels = mkIf (labels != { }) (lib.mapAttrs (_: mkDefault) labels);
      };
    })
    (mkIf (writes && engine == "victoriametrics-cluster") {
      systemd.services.vminsert = unit.service {
        description = "VictoriaMetrics cluster: insert";
        command = [
          "${cluster}/vminsert"
          "-httpListenAddr=127.0.0.1:${toString insertPort}"
          "-enableTCP6"
        ]
        ++ cd.storage.vminsertFlags storage;
      };
    })

    # What reads the nodes as one
    (mkIf usesProxy {
      systemd.services.clan-discovery-storage = unit.service {
        description = "Proxy for the nodes that store samples";
        command = [
          "${pkgs.victoriametrics}/bin/vmauth"
          "-auth.config=${json.generate "clan-discovery-storage.json" (cd.storage.proxy storage)}"
          "-httpListenAddr=127.0.0.1:${toString own.proxyPort}"
          "-enableTCP6"
        ];
      };
    })
    (mkIf (reads && engine == "victoriametrics-cluster") {
      systemd.services.vmselect = unit.service {
        description = "VictoriaMetrics cluster: select";
        cache = "vmselect";
        command = [
          "${cluster}/vmselect"
          "-httpListenAddr=127.0.0.1:${toString selectPort}"
          "-cacheDataPath=/var/cache/vmselect"
          "-enableTCP6"
        ]
        ++ cd.storage.vmselectFlags storage;
      };
    })
    (lib.optionalAttrs hasThanos (
      mkIf (reads && engine == "thanos") {
        services.thanos.query = {
          enable = mkDefault true;
          arguments = escaped (
            [
              "--http-address=127.0.0.1:${toString queryPort}"
              "--grpc-address=127.0.0.1:10903"
            ]
            ++ cd.storage.queryFlags storage own.scrapedTwice
          );
        };
      }
    ))

    {
      assertions =
        map (what: {
          assertion = false;
          message = "services.clan-discovery.storage.${what}";
        }) (lib.optionals (nodes != [ ]) (
          cd.storage.complaintsOf { inherit (storage) engine mode replicas; } (lib.length nodes)
        ))
        ++ refuseIf (own.node != null && !isNode)
          ".node: there is no node '${toString own.node}' in `nodes`: add it, or correct the name"
        ++
          refuseIf (!isDuration)
            ".dedupInterval: '${own.dedupInterval}' is no duration from ${bounds.least} to ${bounds.most}: write for example 15s"
        ++
          refuseIf (own.dedupInterval != "1ms" && !lib.hasPrefix "victoriametrics" engine)
            ".dedupInterval is for VictoriaMetrics, not for ${engine}: remove it"
        ++ map (
          places:
          refusal ".nodes: ${lib.concatStringsSep " and " (map (node: node.name) places)} are both at ${placeOf (lib.head places)}, so that two copies of a sample would be in one place: give each node a machine, or a port, of its own"
        ) (lib.filter (places: lib.length places > 1) (lib.attrValues (lib.groupBy placeOf nodes)))
        ++ lib.optional (writes && unheard != [ ]) {
          assertion = false;
          message = "services.clan-discovery.settings.storage has another ${lib.concatStringsSep " and " unheard} than services.clan-discovery.storage, whose programs would not follow: set it there; or set services.clan-discovery.storage.writes = false, and give the programs the flags of `show --format storage`";
        }
        ++
          refuseIf
            ((isNode || writes || reads) && engine == "victoriametrics-cluster" && own.clusterPackage == null)
            ".clusterPackage is not set: nixpkgs has no vmstorage, vminsert and vmselect: set a package with these programs, or the engine victoriametrics with mode = \"replicate\""
        ++
          refuseIf ((isNode || writes || reads) && engine == "thanos" && !hasThanos)
            ".engine is thanos, but this NixOS has no services.thanos: update nixpkgs"
        ++
          refuseIf (usesPrometheus && own.mode == "shard")
            ".mode is \"shard\", and Prometheus does not shard series with copies: write with vmagent, or set mode = \"replicate\""
        ++
          refuseIf (usesVmagent && own.mode == "shard" && vmagent.remoteWrite.url != firstUrl)
            ".mode is \"shard\", and vmagent would store a part of the series at ${toString vmagent.remoteWrite.url}, too: remove that remote write"
        ++ lib.optionals (isNode && engine != "remote-write") (
          lib.concatMap (
            port:
            refuseIf (port < 1024)
              ": port ${toString port} of the node ${own.node} is reserved: programs other than root's cannot listen below 1024: set another one"
            ++
              refuseIf (lib.elem port taken)
                ": port ${toString port} of the node ${own.node} is that of another program of this machine: set another one"
          ) ports
          ++ refuseIf (engine == "victoriametrics" && self.port != self.readPort) (
            ": the node ${own.node} has readPort ${toString self.readPort}, but victoriametrics takes writes and queries on one port: remove readPort"
          )
          ++
            refuseIf (engine != "victoriametrics" && self.port == self.readPort)
              ": the node ${own.node} takes writes and queries on the same port ${toString self.port}: set another readPort"
        );
    }
  ];
}
