# What of a server would only fail when it is built, or when it runs. Each message names the place, and what to do.
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
  sharing,
}:
let
  inherit (common) machine;
  discovery = config.services.clan-discovery;
  listed = lib.concatStringsSep ", ";
  instances = listed (map (entry: entry.instance) mine);
  settings = map (entry: entry.settings) mine;

  refuse = message: {
    assertion = false;
    message = "clan-discovery: ${message}";
  };
  refuseIf = condition: message: lib.optional condition (refuse message);
  warnIf = condition: message: lib.optional condition "clan-discovery: ${message}";

  complaints =
    complaintsOf: members:
    lib.concatMap (
      member: map (what: refuse "${member.where}: ${what}") (complaintsOf member.settings)
    ) members;
  # Of every exporter, wherever it is: otherwise it would silently be no target.
  misread =
    complaints cd.service.complaintsOf seen.exporters
    ++ complaints (said: cd.service.serverComplaintsOf said discovery.settings.exporters) mine;

  twice = map (
    name:
    refuse "${machine}: there is more than one scrape config '${name}', and Prometheus refuses that: rename yours${
      lib.optionalString (name == "prometheus") ", or set `scrapeServers = false`"
    }"
  ) (cd.duplicates (backends.jobsIn (lib.head settings) config));

  # Not again in other words: what `misread` and `twice` say.
  wrong = lib.optionals (misread == [ ]) (
    lib.filter (problem: !lib.hasInfix "more than one scrape config" problem.message) (
      # Of the user's own jobs only the names: a target is what their relabelling makes of it.
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
    in
    refuseIf (backend == "prometheus" && !config.services.prometheus.enable)
      "services.prometheus.enable is false on ${machine}, which has the role server in the instance ${entry.instance}: take the role away, or set another `backend`"
    ++
      refuseIf (foreign != [ ])
        "${entry.where}: ${listed foreign} mean nothing to the backend ${backend}: take them away, or set them in services.${backend} of the machine"
    ++
      refuseIf (isVmagent && remoteWrite == [ ] && config.services.vmagent.remoteWrite.url == null)
        "${entry.where}: vmagent keeps nothing itself: say where it sends to, remoteWrite = [ { url = \"http://...:8428/api/v1/write\"; } ]"
    ++
      refuseIf (isVmagent && lib.any (write: lib.attrNames write != [ "url" ]) remoteWrite)
        "${entry.where}.remoteWrite: of an entry only `url` is handed to vmagent: set the rest in services.vmagent of the machine";

  # Shares are of one list: a target of only one of the servers would be scraped by nobody, half of the time.
  shared =
    name:
    map (
      member:
      lib.getAttrs [
        "additionalScrapeConfigs"
        # Prometheus and VictoriaMetrics do not hash alike.
        "backend"
        "discoveryMethod"
        "dnsDiscovery"
        "enableAutoDiscovery"
        "scrapeConfigs"
        "snapshot"
        "staticTargets"
      ] member.settings
    ) (lib.filter (member: member.machine == name) seen.servers);

  warningsOf =
    entry:
    let
      said = entry.settings;
      jobs = said.additionalScrapeConfigs ++ said.scrapeConfigs;
      dropped = backends.unscraped said;
      scraped = cd.service.serverPort said;
      listens = backends.portIn said config;
    in
    warnIf (said.scrapeServers && lib.any (job: (job.job_name or "") == "prometheus") jobs)
      "${entry.where}: the scrape config 'prometheus' goes before ours, which would scrape every server: take it away, or set `scrapeServers = false`"
    ++ warnIf (
      dropped != [ ]
    ) "${entry.where}.globalConfig: ${listed dropped} means nothing to ${said.backend}, and is left out"
    ++
      warnIf (said.scrapeServers && listens != scraped)
        "${entry.where}: other servers scrape this one at port ${toString scraped}, and it listens at ${toString listens}: set `port` in the settings";
  darwin = lib.filter seen.isDarwin (lib.unique (map (member: member.machine) seen.exporters));
in
{
  assertions =
    map (
      role: refuse "${role} has no machine: no machine bears its tags, or none is named"
    ) seen.emptyRoles
    ++ map (
      name: refuse "the role of an instance names the machine ${name}, which is no machine of the clan"
    ) seen.strangers
    ++ misread
    ++ twice
    ++ wrong
    ++
      refuseIf (lib.length used > 1)
        "${machine} is a server of the instances ${instances}, with the backends ${listed used}: a machine has one"
    ++
      refuseIf (lib.length used == 1 && differing != [ ])
        "${machine} is a server of the instances ${instances}, which do not say the same of ${listed differing}: a machine has one server; say it in ${(lib.head mine).instance}"
    ++ lib.concatMap refusedOf mine
    ++
      refuseIf (discovery.enable && discovery.mode == "static" && methods != [ ])
        "services.clan-discovery.mode is \"static\" on ${machine}, which asks no backend, and discoveryMethod of the instances ${instances} has ${listed methods}: take one away"
    ++
      refuseIf (lib.elem machine sharing && lib.any (name: shared name != shared machine) sharing)
        "${listed sharing} share their targets (sharding = \"hashmod\") and have different jobs: set staticTargets, dnsDiscovery, additionalScrapeConfigs, discoveryMethod, snapshot and backend for the role, and not for one machine";

  warnings =
    lib.concatMap warningsOf mine
    ++
      warnIf (seen.foreign != [ ])
        "${listed seen.foreign}: instances of a module prometheus from another input, whose exporters ${machine} does not see: give them the same `module.input`"
    ++
      warnIf (darwin != [ ])
        "${listed darwin} in the role exporter: darwin machines have no NixOS exporter, and get no target; give the role the tag `nixos`"
    ++
      warnIf (lib.elem "tailscale" methods && !(config.services.tailscale.enable or false))
        "${machine}: discoveryMethod has tailscale, and services.tailscale.enable is false: until a tailscaled runs, each machine is scraped at its name";
}
