# What would only fail at run time. Each message names the option that is wrong, and what to write.
{ lib, cfg }:
let
  inherit (cfg) settings;
  directory = toString settings.output.directory;
  below = parent: path: lib.hasPrefix "${parent}/" "${path}/";
in
[
  {
    assertion =
      settings.inventory != null
      || settings.exporters != { }
      || settings.backends.static or null != null
      || settings.backends.dns or null != null;
    message = "services.clan-discovery.settings declares nothing: set `inventory.file`, or `exporters.<type>.select`, or `backends.static`, or `backends.dns`";
  }
  {
    assertion =
      settings.inventory == null
      || (settings.inventory.file == null) != (settings.inventory.flake == null);
    message = "services.clan-discovery.settings.inventory needs exactly one of `file` and `flake`";
  }
  {
    assertion = settings.inventory == null || settings.inventory.flake == null;
    message = "services.clan-discovery.settings.inventory.flake cannot be evaluated by the unit, which has no Nix and no network: set `file`, for example to what `clan-discovery dump` writes";
  }
  {
    assertion = !(below "/run" directory || below "/tmp" directory);
    message = "services.clan-discovery.settings.output.directory is ${directory}: below /run it is emptied when the unit ends, and below /tmp no scraper sees it; leave it at /var/lib/clan-discovery/targets";
  }
  {
    assertion = cfg.metrics.listen == null || cfg.mode == "resident";
    message = "services.clan-discovery.metrics.listen is served by the resident mode alone: set `mode = \"resident\"`, or `metrics.textfile`";
  }
  {
    assertion = cfg.metrics.listen == null || cfg.network;
    message = "services.clan-discovery.metrics.listen needs the network: leave `network` at its default, or set it to true";
  }
  {
    assertion = cfg.network || settings.backends.dns or null == null;
    message = "services.clan-discovery.network is false, and settings.backends.dns (${
      lib.concatStringsSep ", " (
        lib.attrNames (if settings.backends.dns or null == null then { } else settings.backends.dns)
      )
    }) asks DNS: set it to true";
  }
]
