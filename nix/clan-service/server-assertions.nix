# What of a server would only fail when it is built, or when it runs. Each message names the place and the mend.
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
  place = entry: "instances.${entry.instance}.roles.server.machines.${machine}.settings";
  refuse = message: {
    assertion = false;
    message = "clan-discovery: ${message}";
  };
  listed = lib.concatStringsSep ", ";

  emptyRoles = lib.concatLists (
    lib.mapAttrsToList (
      instance: roles:
      map (
        role:
        refuse "instances.${instance}.roles.${role} has no machine: no machine bears its tags, or none is named"
      ) (lib.filter (role: roles.${role} == { }) (lib.attrNames roles))
    ) seen.instances
  );

  strangers = map (
    name: refuse "the role of an instance names the machine ${name}, which is no machine of the clan"
  ) seen.strangers;

  # Of every exporter, wherever it is: it would be no target, and nobody would see why.
  misread = lib.concatLists (
    lib.mapAttrsToList (
      instance: roles:
      lib.concatLists (
        lib.mapAttrsToList (
          name: settings:
          map (what: refuse "instances.${instance}.roles.exporter.machines.${name}.settings: ${what}") (
            cd.service.complaintsOf settings
          )
        ) (roles.exporter or { })
      )
    ) seen.instances
  );

  refused = lib.concatMap (
    entry: map (what: refuse "${place entry}: ${what}") (cd.service.serverComplaintsOf entry.settings)
  ) mine;

  twice =
    let
      names = cd.duplicates (
        lib.concatMap (entry: backends.jobsIn entry.settings config) (lib.take 1 mine)
      );
    in
    map (
      name:
      refuse "${machine}: there is more than one scrape config '${name}', and Prometheus refuses that: rename yours${
        lib.optionalString (name == "prometheus") ", or set `scrapeServers = false`"
      }"
    ) names;

  # What was told already is not told in other words.
  settled = lib.optionals (misread ++ refused == [ ]) (
    lib.filter (problem: !lib.hasInfix "more than one scrape config" problem.message) (
      # Of the user's own jobs only the names: a target is what their relabelling makes of it.
      cd.problemsOf (ours ++ map (job: { job_name = job.job_name or ""; }) additional)
    )
  );

  unlike =
    let
      names = backends.differing (map (entry: entry.settings) mine);
    in
    lib.optional (lib.length several == 1 && names != [ ]) (
      refuse "${machine} is a server of the instances ${
        listed (map (entry: entry.instance) mine)
      }, which do not say the same of ${listed names}: a machine has one server; say it in ${(lib.head mine).instance}"
    );
  off = map (entry: {
    assertion = entry.settings.backend != "prometheus" || config.services.prometheus.enable;
    message = "clan-discovery: services.prometheus.enable is false on ${machine}, which has the role server in the instance ${entry.instance}: take the role away, or set another `backend`";
  }) mine;

  several = lib.unique (map (entry: entry.settings.backend) mine);
  backendsDiffer = lib.optional (lib.length several > 1) (
    refuse "${machine} is a server of the instances ${
      listed (map (entry: entry.instance) mine)
    }, with the backends ${listed several}: a machine has one"
  );

  foreign = lib.concatMap (
    entry:
    let
      names = backends.untranslatable entry.settings;
    in
    lib.optional (names != [ ]) (
      refuse "${place entry}: ${listed names} mean nothing to the backend ${entry.settings.backend}: take them away, or set them in services.${entry.settings.backend} of the machine"
    )
  ) mine;

  nowhere = lib.concatMap (
    entry:
    lib.optional
      (
        entry.settings.backend == "vmagent"
        && entry.settings.remoteWrite == [ ]
        && config.services.vmagent.remoteWrite.url == null
      )
      (
        refuse "${place entry}: vmagent keeps nothing itself: say where it sends to, remoteWrite = [ { url = \"http://...:8428/api/v1/write\"; } ]"
      )
  ) mine;
  dressed = lib.concatMap (
    entry:
    lib.optional
      (
        entry.settings.backend == "vmagent"
        && lib.any (write: lib.attrNames write != [ "url" ]) entry.settings.remoteWrite
      )
      (
        refuse "${place entry}.remoteWrite: of an entry only `url` is handed to vmagent: set the rest in services.vmagent of the machine"
      )
  ) mine;

  # Shares are of one list: what only one of the servers has would be scraped by nobody, half of the time.
  same = settings: {
    inherit (settings)
      additionalScrapeConfigs
      # Prometheus and VictoriaMetrics do not hash alike.
      backend
      discoveryMethod
      dnsDiscovery
      enableAutoDiscovery
      scrapeConfigs
      staticTargets
      ;
  };
  wishes =
    name:
    lib.concatMap (
      instance: lib.optional ((instance.server or { }) ? ${name}) (same instance.server.${name})
    ) (lib.attrValues seen.instances);
  sharesDiffer =
    lib.optional (lib.elem machine sharing && lib.any (name: wishes name != wishes machine) sharing)
      (
        refuse "${listed sharing} share their targets (sharding = \"hashmod\") and have different jobs: set staticTargets, dnsDiscovery, additionalScrapeConfigs, discoveryMethod and backend for the role, and not for one machine"
      );
in
{
  assertions =
    emptyRoles
    ++ strangers
    ++ misread
    ++ refused
    ++ twice
    ++ settled
    ++ backendsDiffer
    ++ unlike
    ++ off
    ++ foreign
    ++ nowhere
    ++ dressed
    ++ sharesDiffer;

  warnings =
    let
      own = lib.filter (
        entry:
        entry.settings.scrapeServers
        && lib.any (job: (job.job_name or "") == "prometheus") (
          entry.settings.additionalScrapeConfigs ++ entry.settings.scrapeConfigs
        )
      ) mine;
      dropped = lib.filter (entry: backends.unscraped entry.settings != [ ]) mine;
      darwin =
        lib.filter (name: (seen.machines.${name} or { machineClass = ""; }).machineClass == "darwin")
          (
            lib.unique (
              lib.concatMap (instance: lib.attrNames (instance.exporter or { })) (lib.attrValues seen.instances)
            )
          );
      expected = lib.filter (
        entry:
        entry.settings.scrapeServers
        && backends.portIn entry.settings config != cd.service.serverPort entry.settings
      ) mine;
    in
    map (
      entry:
      "clan-discovery: ${place entry}: the scrape config 'prometheus' goes before ours, which would scrape every server: take it away, or set `scrapeServers = false`"
    ) own
    ++
      lib.optional (seen.foreign != [ ])
        "clan-discovery: ${listed seen.foreign}: instances of a module prometheus from another input, whose exporters ${machine} does not see: give them the same `module.input`"
    ++ map (
      entry:
      "clan-discovery: ${place entry}.globalConfig: ${listed (backends.unscraped entry.settings)} means nothing to ${entry.settings.backend}, and is left out"
    ) dropped
    ++
      lib.optional (darwin != [ ])
        "clan-discovery: ${listed darwin} in the role exporter: darwin machines have no NixOS exporter, and get no target; give the role the tag `nixos`"
    ++
      lib.optional (lib.elem "tailscale" methods && !(config.services.tailscale.enable or false))
        "clan-discovery: ${machine}: discoveryMethod has tailscale, and services.tailscale.enable is false: until a tailscaled runs, machines stand at their names"
    ++ map (
      entry:
      "clan-discovery: ${place entry}: other servers scrape this one at port ${toString (cd.service.serverPort entry.settings)}, and it listens at ${toString (backends.portIn entry.settings config)}: set `port` in the settings"
    ) expected;
}
