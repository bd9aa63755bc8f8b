# Assertions and warnings for mistakes that would otherwise fail in a build or at run time.
{ lib, cd }:
{
  common,
  config,
  seen,
  mine,
  methods,
  ours,
  additional,
  backends,
  darwin,
  sharing,
  scraper,
}:
let
  endpoints = import ./endpoints.nix { inherit lib cd; };
  jobs = import ./jobs.nix { inherit lib cd; };
  inherit (common) machine;
  discovery = config.services.clan-discovery;
  alerts = import ../nixos/alert-rules.nix { inherit lib cd; };
  limits = import ../nixos/limits.nix { inherit lib cd; };
  listed = lib.concatStringsSep ", ";
  instances = listed (map (entry: entry.instance) mine);
  settings = map (entry: entry.settings) mine;

  inherit (import ./messages.nix { inherit lib; }) refuse refuseIf warnIf;

  complaints =
    complaintsOf: members:
    lib.concatMap (
      member: map (what: refuse "${member.where}: ${what}") (complaintsOf member.settings)
    ) members;
  # What the machine's own configuration says of exporters: ports, and the targets of probes.
  configured = lib.recursiveUpdate (lib.mapAttrs (
    _: lib.intersectAttrs { params = null; }
  ) discovery.settings.jobs) discovery.settings.exporters;
  # Exporters of all machines: otherwise a mistake would silently lose a target. exporter.nix reports those of this one.
  elsewhere = lib.partition (member: member.machine != machine) seen.exporters;
  ofThis = complaints cd.service.complaintsOf elsewhere.wrong;
  misread =
    complaints cd.service.complaintsOf elsewhere.right
    ++ complaints (limits.roleComplaintsOf seen) elsewhere.right
    ++ complaints (said: cd.service.serverComplaintsOf said configured) mine
    ++ complaints (said: alerts.complaintsOf said.alerts.rules) mine;

  # Where scrape configs of a name come from.
  placesOf =
    name:
    let
      isIt = job: (job.job_name or "") == name;
      own = lib.filter (
        entry: lib.any isIt (entry.settings.additionalScrapeConfigs ++ entry.settings.scrapeConfigs)
      ) mine;
      places = lib.optional (lib.any isIt ours) "the generated jobs" ++ map (entry: entry.where) own;
    in
    if lib.length places > 1 then places else places ++ [ "services.${lib.head used} of ${machine}" ];
  twice = map (
    name:
    refuse "${machine}: more than one scrape config is named '${name}' (in ${lib.concatStringsSep " and " (placesOf name)}), which Prometheus refuses: rename yours${
      lib.optionalString (name == "prometheus") ", or set `scrapeServers = false`"
    }"
  ) (cd.duplicates (backends.jobsIn (lib.head settings) config (ours ++ additional)));

  # Without what `misread`, `twice` and exporter.nix already say.
  wrong = lib.optionals (misread == [ ] && ofThis == [ ]) (
    lib.filter (problem: !lib.hasInfix "more than one scrape config" problem.message) (
      # Only the names of the user's own jobs: relabelling may change their targets.
      cd.problemsOf (ours ++ map (job: { job_name = job.job_name or ""; }) additional)
    )
  );

  used = lib.unique (map (one: one.backend) settings);
  differing = backends.differing settings;

  refusedOf =
    entry:
    let
      inherit (entry.settings) backend remoteWrite;
      foreign = backends.untranslatable entry.settings;
      isVmagent = backend == "vmagent";
      isAgent = backend == "prometheus" && config.services.prometheus.enableAgentMode;
    in
    refuseIf (foreign != [ ])
      "${entry.where}: the backend ${backend} has no setting ${listed foreign}: remove it, or set it in services.${backend} of the machine"
    ++
      refuseIf (isVmagent && remoteWrite == [ ] && config.services.vmagent.remoteWrite.url == null)
        "${entry.where}: vmagent stores nothing: set remoteWrite = [ { url = \"http://...:8428/api/v1/write\"; } ]"
    ++
      refuseIf (isAgent && config.services.prometheus.remoteWrite == [ ])
        "${entry.where}: Prometheus in agent mode stores nothing: set remoteWrite = [ { url = \"http://...:9090/api/v1/write\"; } ]"
    ++
      refuseIf (isVmagent && lib.any (write: lib.attrNames write != [ "url" ]) remoteWrite)
        "${entry.where}.remoteWrite: only `url` is supported for vmagent: set the rest in services.vmagent of the machine";

  # Servers share one list: a target that only one server has might belong to the other's share.
  shared =
    name:
    lib.unique (
      map (
        { settings, ... }:
        lib.getAttrs [
          "additionalScrapeConfigs"
          "discoveryMethod"
          "dnsDiscovery"
          "enableAutoDiscovery"
          "scrapeConfigs"
          "snapshot"
          "staticTargets"
        ] settings
        # Prometheus and VictoriaMetrics use different hashes in rules.
        // lib.optionalAttrs (settings.sharding == "hashmod" || jobs.additionalOf [ { inherit settings; } ] != [ ]) {
          inherit (settings) backend;
        }
      ) (lib.filter (member: member.machine == name) seen.servers)
    );

  # The name of a server must not point at another machine.
  namedTwice =
    entry:
    let
      hosts = endpoints.hostsOf {
        inherit (common) instances;
        inherit (seen) domain;
        inherit machine;
        inherit (entry) settings;
      };
      others = lib.filter (name: lib.elem "${name}.${seen.domain}" hosts) (
        lib.remove machine (lib.attrNames seen.machines)
      );
    in
    map (
      other:
      refuse "${entry.where}.endpoints: ${other.host} is exported by ${other.scope}, too: remove it here or there"
    ) (endpoints.elsewhere common.exports machine hosts)
    ++ map (
      name:
      refuse "${entry.where}.endpoints: ${name}.${seen.domain} is the name of the machine ${name}: set other names, or [ ] for none"
    ) others;

  warningsOf =
    entry:
    let
      said = entry.settings;
      jobs = said.additionalScrapeConfigs ++ said.scrapeConfigs;
      dropped = backends.unscraped said;
      omitted = backends.omitted said config;
      scraped = cd.service.serverPort said;
      listens = backends.portIn said config;
    in
    warnIf (said.scrapeServers && lib.any (job: (job.job_name or "") == "prometheus") jobs)
      "${entry.where}: your scrape config 'prometheus' replaces the generated one, which scrapes every server: rename it, or set `scrapeServers = false`"
    ++ warnIf (
      omitted != [ ]
    ) "${entry.where}: Prometheus in agent mode has no ${listed omitted}, which is omitted"
    ++ warnIf (
      dropped != [ ]
    ) "${entry.where}.globalConfig: ${said.backend} has no ${listed dropped}, which is omitted"
    ++
      warnIf (said.scrapeServers && listens != scraped)
        "${entry.where}: other servers scrape port ${toString scraped}, but this one listens on ${toString listens}: set `port` in the settings";
  # The operator's own program stands for it.
  isUnasked =
    discovery.enable
    && scraper != null
    && scraper.closed
    && (discovery.settings.verify == null || discovery.settings.verify.scrapers == { });
  # Without a unit there is nothing to serve, and no config of `verify`.
  unserved =
    entry:
    let
      said =
        lib.optional entry.settings.web.enable "web.enable"
        ++ lib.optional (entry.settings.verifyInterval != null) "verifyInterval";
    in
    refuseIf (said != [ ] && discovery.snapshot != null)
      "${entry.where}: ${lib.concatStringsSep " and " said} cannot be used with a snapshot, because nothing runs on the server: remove one of both";
  # `run` would ask ports on which no scraper listens, and the alert would never end.
  isVain =
    discovery.enable
    && scraper == null
    && discovery.verifyInterval != null
    && (discovery.settings.verify == null || discovery.settings.verify.scrapers == { });
  unscraped = import ./unscraped.nix {
    inherit
      lib
      cd
      machine
      config
      ;
  };
  # Of several backends, only the first is set up.
  reached = map (entry: unscraped.server entry (backends.serviceOf entry.settings config)) (
    lib.optionals (lib.length used == 1) mine
  );
  # A policy that excludes node exporter as well is the user's own.
  onDarwin = lib.concatMap (
    member:
    map (exporter: "${exporter.type} of ${member.machine}") (
      lib.filter (exporter: exporter.type != "node" && !(cd.declared.runsOnDarwin darwin exporter)) (
        cd.service.exportersOf member.settings
      )
    )
  ) (lib.filter (member: seen.isDarwin member.machine) seen.exporters);
in
{
  assertions =
    map refuse (seen.emptyRoles "server" ++ seen.emptyRoles "exporter" ++ seen.emptyRoles "storage" ++ seen.strangers)
    ++ misread
    ++ twice
    ++ wrong
    ++
      refuseIf (lib.length used > 1)
        "${machine} is a server of the instances ${instances}, with the backends ${listed used}: use one backend"
    ++
      refuseIf (lib.length used == 1 && differing != [ ])
        "${machine} is a server of the instances ${instances}, which differ in ${listed differing}: set these in ${(lib.head mine).instance} only"
    ++ lib.concatMap refusedOf mine
    ++ lib.concatMap (one: one.assertions) reached
    ++ lib.concatMap namedTwice mine
    ++ lib.concatMap unserved mine
    ++ refuseIf isVain "${machine}: verifyInterval is set, but ${(lib.head settings).backend} cannot be asked for its targets: set it for the other servers only, or set services.clan-discovery.settings.verify.scrapers.<name>.url"
    ++
      refuseIf (discovery.enable && discovery.mode == "static" && methods != [ ])
        "services.clan-discovery.mode is \"static\" on ${machine}, which asks no backend, but discoveryMethod of the instances ${instances} has ${listed methods}: remove one"
    ++ map refuse sharing.complaints
    ++
      refuseIf (sharing.shard != null && discovery.snapshot != null)
        "a snapshot has the targets of every server: remove it, or set `sharding = \"hashmod\"`"
    ++
      refuseIf (lib.any (name: shared name != shared machine) sharing.machines)
        "${listed sharing.machines} share their targets (sharding = \"${(lib.head settings).sharding}\") but have different jobs: set staticTargets, dnsDiscovery, additionalScrapeConfigs, discoveryMethod, snapshot and backend for the role, not for one machine";

  warnings =
    lib.concatMap warningsOf mine
    ++ warnIf (isUnasked) "${machine}: `verify` does not ask ${(lib.head settings).backend}, because ${scraper.why}: set services.clan-discovery.settings.verify.scrapers.${(lib.head settings).backend}, with its `url` and what it asks for"
    ++ lib.concatMap (one: one.warnings) reached
    ++
      warnIf (seen.foreign != [ ])
        "${listed seen.foreign}: instances of a module prometheus from another input, whose exporters ${machine} does not scrape: set the same `module.input`"
    ++
      warnIf (onDarwin != [ ])
        "${listed onDarwin}: nix-darwin has no such exporter, so it is no target: set `exporters.<type>.enable = false` for the machine, or give the role the tag `nixos` instead of `all`"
    ++
      warnIf (lib.elem "tailscale" methods && !(config.services.tailscale.enable or false))
        "${machine}: discoveryMethod has tailscale, but services.tailscale.enable is false: until tailscaled runs, names are the addresses";
}
