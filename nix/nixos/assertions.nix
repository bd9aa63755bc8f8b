# What would only fail at run time or in a build. Each message names the option that is wrong, and what to write.
{
  lib,
  cd,
  cfg,
  readable,
}:
let
  inherit (cfg) settings;
  inherit (settings) inventory;
  directory = toString settings.output.directory;
  static = cfg.mode == "static";
  below = parent: lib.hasPrefix "${parent}/" "${directory}/";
  dns = settings.backends.dns or null;
  asked = lib.filter (kind: settings.backends.${kind} or null != null) [
    "dns"
    "tailscale"
  ];
  selects = lib.filterAttrs (_: rule: rule.select or null != null) settings.exporters;
  # An inventory may ask for a Tailscale backend: then only the program can tell.
  anyTailnet =
    inventory != null
    || !lib.elem (settings.backends.tailscale or null) [
      null
      { }
    ];
  # The unit would fail at its start: what `check` says of labels.
  labelsOf =
    option: labels:
    map (what: require false "settings.${option}: ${what}") (
      cd.service.labelComplaints (if lib.isAttrs labels then labels else { })
    );
  require = assertion: message: {
    inherit assertion;
    message = "services.clan-discovery.${message}";
  };
in
[
  (require
    (inventory != null || selects != { } || settings.backends.static or null != null || dns != null)
    "settings declares nothing: set `inventory.file`, or `exporters.<type>.select` and `backends.tailscale`, or `backends.static`, or `backends.dns`"
  )
  (require (
    inventory == null || (inventory.file == null) != (inventory.flake == null)
  ) "settings.inventory needs exactly one of `file` and `flake`")
  (require (inventory == null || inventory.flake == null)
    "settings.inventory.flake cannot be evaluated by the unit, which has no Nix and no network: set `file`, for example to what `clan-discovery dump` writes"
  )
  (require (!(below "/run" || below "/tmp"))
    "settings.output.directory is ${directory}: below /run it is emptied when the unit ends, and below /tmp no scraper sees it; leave it at /var/lib/clan-discovery/targets"
  )
  (require (cfg.metrics.listen == null || cfg.mode == "resident")
    "metrics.listen is served by the resident mode alone: set `mode = \"resident\"`, or `metrics.textfile`"
  )
  (require (
    cfg.metrics.listen == null || cfg.network
  ) "metrics.listen needs the network: leave `network` at its default, or set it to true")
  (require (cfg.network || dns == null)
    "network is false, and settings.backends.dns (${
      lib.concatStringsSep ", " (lib.attrNames (if dns == null then { } else dns))
    }) asks DNS: set it to true"
  )
  (require (
    cfg.snapshot == null
  ) "snapshot already gives the targets: set either `snapshot` or `enable`")
  (require (!static || asked == [ ])
    "mode is \"static\", which asks no backend, and settings.backends has ${lib.concatStringsSep " and " asked}: set `mode` to \"resident\" or \"timer\""
  )
  (require (!static || readable || inventory.flake != null)
    "mode is \"static\", and settings.inventory names a file that the build cannot read: give a path of the store (`./inventory.json`), or set `mode` to \"resident\" or \"timer\""
  )
  (require (!static || directory == "/etc/clan-discovery/targets")
    "mode is \"static\", which links the target files at /etc/clan-discovery/targets, and settings.output.directory is ${directory}: take it out"
  )
]
++ lib.mapAttrsToList (
  type: rule:
  require (anyTailnet || rule.select.backends or null != null)
    "settings.exporters.${type}.select has no Tailscale backend to select machines from: set settings.backends.tailscale, or name others in `select.backends`"
) selects
++ labelsOf "labels" settings.labels
++ lib.concatMap (
  type: labelsOf "exporters.${type}.labels" (settings.exporters.${type}.labels or null)
) (lib.attrNames settings.exporters)
