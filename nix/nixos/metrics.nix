# The unit's own metrics: where they are, and how they reach the scraper.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.clan-discovery;
  inherit (cfg) metrics;
  web = import ./web.nix { inherit lib config; };
  option = options.services.clan-discovery;
  inherit (config.services.prometheus.exporters) node;

  directory = "/var/lib/clan-discovery/metrics";
  flag = "--collector.textfile.directory=${directory}";

  hasUnit = cfg.enable && cfg.mode != "static";
  # The flags of node exporter must not be read here, because they depend on this.
  isRead =
    metrics.textfile
    && metrics.isNodeScraped
    # The alert rules leave out what agents send.
    && !cfg.agent.enable
    && node.enable
    && !lib.elem "textfile" node.disabledCollectors;
  # Not if somebody has set `network = false`.
  mayListen =
    cfg.mode == "resident"
    && (option.network.highestPrio >= (lib.mkDefault null).priority || cfg.network);

  # Collectors are off by default with this flag.
  isOff =
    lib.elem "--collector.disable-defaults" node.extraFlags
    && !lib.elem "textfile" node.enabledCollectors
    && !lib.elem "--collector.textfile" node.extraFlags;
  isUnread = metrics.scrape == null || (metrics.scrape == "listen" && metrics.listen == null);
in
{
  options.services.clan-discovery.metrics = {
    textfile = mkOption {
      type = types.bool;
      default = true;
      description = "Whether to write metrics to ${directory}/clan-discovery.prom, for the textfile collector of node exporter.";
    };

    listen = mkOption {
      type = types.nullOr types.str;
      default =
        if metrics.scrape != "listen" then
          null
        else if web.onLoopback then
          cfg.settings.web.listen
        else
          "127.0.0.1:9199";
      defaultText = lib.literalMD "if `metrics.scrape` is `\"listen\"`: `settings.web.listen` if that is loopback, else `\"127.0.0.1:9199\"`; else `null`";
      example = "127.0.0.1:9199";
      description = "Resident mode: loopback address on which to serve /metrics and /healthz.";
    };

    isNodeScraped = mkOption {
      type = types.bool;
      default = true;
      internal = true;
      description = "Whether the scraper of this machine reads the machine's node exporter.";
    };

    scrape = mkOption {
      type = types.nullOr (
        types.enum [
          "node-exporter"
          "listen"
          "none"
        ]
      );
      default =
        if !hasUnit then
          null
        else if isRead then
          "node-exporter"
        else if mayListen then
          "listen"
        else
          null;
      defaultText = lib.literalMD "`\"node-exporter\"` if the machine has one; else `\"listen\"` in resident mode";
      example = "none";
      description = ''
        How the metrics reach the scraper. `node-exporter`: the machine's node exporter reads the file. `listen`: the
        address of `metrics.listen` is the job `clan-discovery` of `scrapeConfigs`. `none`: in a way of your own.
      '';
    };
  };

  config = lib.mkIf hasUnit {
    services.prometheus.exporters.node.extraFlags = lib.mkIf (metrics.scrape == "node-exporter") [
      flag
    ];

    assertions = [
      {
        assertion = lib.count (lib.hasInfix directory) node.extraFlags <= 1;
        message = "services.prometheus.exporters.node.extraFlags has ${directory} twice, and node exporter would report each metric twice: services.clan-discovery adds it, remove yours";
      }
    ];
    warnings =
      lib.optional (isUnread && cfg.agent.enable)
        "clan-discovery: the agent on ${config.networking.hostName} would send the metrics of the unit, and alerts do not believe what agents send: set mode = \"resident\", so that the server reads them, or services.clan-discovery.metrics.scrape to \"none\" if you read them in a way of your own"
      ++
        lib.optional (isUnread && !cfg.agent.enable)
          "clan-discovery: no scraper reads the metrics of the unit on ${config.networking.hostName}, so that its alerts cannot work: enable services.prometheus.exporters.node with its collector textfile (in a clan, by the role exporter), or set services.clan-discovery.metrics.scrape to \"listen\" (resident mode, with a network), or to \"none\" if you read them in a way of your own"
      ++
        lib.optional (metrics.scrape == "node-exporter" && node.enable && isOff)
          "clan-discovery: services.prometheus.exporters.node.extraFlags has --collector.disable-defaults, so node exporter does not read the metrics of the unit: add \"textfile\" to enabledCollectors";
  };
}
