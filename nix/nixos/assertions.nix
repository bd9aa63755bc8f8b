# Assertions for mistakes that would otherwise fail at run time or in a build.
{
  lib,
  cd,
  cfg,
  readable,
  web,
}:
let
  inherit (cfg) settings;
  inherit (settings) inventory;
  sources = [
    "file"
    "flake"
    "manifest"
    "compose"
    "exposed"
  ];
  directory = toString settings.output.directory;
  static = cfg.mode == "static";
  below = parent: lib.hasPrefix "${parent}/" "${directory}/";
  dns = settings.backends.dns or null;
  # Of any kind: other distributions add kinds.
  kinds = lib.filter (kind: settings.backends.${kind} != null) (lib.attrNames settings.backends);
  asked = lib.remove "static" kinds;
  selects = lib.filterAttrs (_: rule: rule.select or null != null) settings.exporters;
  # An inventory may add a Tailscale backend, which only the program knows.
  anyTailnet =
    inventory != null
    || !lib.elem (settings.backends.tailscale or null) [
      null
      { }
    ];
  jobs = import ./jobs.nix { inherit lib cd; };
  # What `check` refuses in labels: the unit would fail when it starts.
  labelsOf =
    option: labels:
    map (what: require false "settings.${option}: ${what}") (
      cd.service.labelComplaints (if lib.isAttrs labels then labels else { })
    );
  # What `run` refuses: the unit would never start.
  day = 86400000.0;
  intervalOf =
    option: text: least:
    let
      time = cd.service.milliseconds text;
    in
    require (
      text == null
      || cfg.mode != "resident"
      || (time != null && time >= cd.service.milliseconds least && time <= day)
    ) "${option}: '${toString text}' is no duration from ${least} to 1d: write for example 5m or 1h30m";
  require = assertion: message: {
    inherit assertion;
    message = "services.clan-discovery.${message}";
  };
in
[
  (require (inventory != null || selects != { } || lib.remove "tailscale" kinds != [ ])
    "settings declares nothing: set `inventory.file`, or `exporters.<type>.select` and `backends.tailscale`, or `backends.static`, or `backends.dns`"
  )
  (require (
    inventory == null || inventory.file == null || inventory.flake == null
  ) "settings.inventory takes `file` or `flake`, not both")
  (require (
    inventory == null || lib.any (source: inventory.${source} or null != null) sources
  ) "settings.inventory needs one of ${lib.concatMapStringsSep ", " (source: "`${source}`") sources}")
  (require (inventory == null || inventory.flake == null)
    "settings.inventory.flake cannot be evaluated by the unit, which has no Nix and no network: set `file`, for example to inventory.json of `clan-discovery dump`"
  )
  (require (!(below "/run" || below "/tmp"))
    "settings.output.directory is ${directory}: systemd empties /run when the unit ends, and no scraper can read the unit's /tmp: use /var/lib/clan-discovery/targets"
  )
  (require (settings.output.files or true)
    "settings.output.files is false, but `scrapeConfigs` read the target files, which would be missing or old: remove it (`settings.web` serves the targets beside the files)"
  )
  (require (
    cfg.metrics.listen == null || cfg.mode == "resident"
  ) "metrics.listen needs the resident mode: set `mode = \"resident\"`, or `metrics.textfile`")
  (require (
    cfg.metrics.listen == null || cfg.network
  ) "metrics.listen needs the network: set `network` to true, or remove it")
  (intervalOf "interval" cfg.interval "1s")
  (intervalOf "verifyInterval" cfg.verifyInterval "10s")
  (require (cfg.network || dns == null)
    "network is false, and settings.backends.dns (${
      lib.concatStringsSep ", " (lib.attrNames (if dns == null then { } else dns))
    }) needs it: set `network` to true"
  )
  (require (cfg.snapshot == null) "snapshot and enable are both set: set one of them")
  (require (!static || asked == [ ])
    "mode is \"static\", which asks no backend, but settings.backends has ${lib.concatStringsSep " and " asked}: set `mode` to \"resident\" or \"timer\""
  )
  (require (!static || readable || inventory.flake != null)
    "mode is \"static\", but settings.inventory names a file that the build cannot read: set a path of the store (`./inventory.json`), or set `mode` to \"resident\" or \"timer\""
  )
  (require (!static || directory == "/etc/clan-discovery/targets")
    "mode is \"static\", which uses /etc/clan-discovery/targets, but settings.output.directory is ${directory}: remove it"
  )
]
++ lib.mapAttrsToList (
  type: rule:
  require (anyTailnet || rule.select.backends or null != null)
    "settings.exporters.${type}.select has no Tailscale backend to select from: set settings.backends.tailscale or `select.backends`"
) selects
++ map (what: require false "settings.${what}") (jobs.refused settings.jobs)
++ map (what: require false "settings.${what}") (jobs.exposedPrograms settings.verify)
++ map (what: require false "settings.${what}") (
  (import ./limits.nix { inherit lib cd; }).configComplaintsOf (settings.limits or { })
)
++ map (require false) web.complaints
++ labelsOf "labels" settings.labels
++ lib.concatMap (
  type: labelsOf "exporters.${type}.labels" (settings.exporters.${type}.labels or null)
) (lib.attrNames settings.exporters)
