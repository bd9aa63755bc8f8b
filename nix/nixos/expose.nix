# What a machine of NixOS or nix-darwin exposes to scrapers and proxies: data that other machines read.
#
# It needs neither `services.clan-discovery.enable` nor the package.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cd = import ../lib;
  suggest = import ./suggest.nix { inherit lib; };
  cfg = config.services.clan-discovery;

  # A program of the user may have any name. One that resembles a known exporter and has its port is probably a typo.
  misspelt =
    name:
    let
      one = cfg.expose.${name};
      type = cd.exposed.typeOf name one;
      alike = lib.filter (known: cd.exporters.${known}.port == one.port) (lib.attrNames cd.exporters);
      hint = suggest type alike "";
    in
    lib.optional (
      !(cd.exporters ? ${type}) && hint != ""
    ) "expose.${name}: '${type}' is no known exporter, but has the port of one: ${hint}";
in
{
  key = "clan-discovery/expose";

  options.services.clan-discovery = {
    expose = mkOption {
      type = types.attrsOf (import ./expose-options.nix lib);
      default = { };
      example.jellyfin = {
        port = 8096;
        front.domain = "films";
      };
      description = ''
        Services of this machine with metrics, a web interface or both, by name (docs/sources.md). Other machines read
        them: nothing runs here, no port is opened, and `enable` is not needed.
      '';
    };

    adoptScrapeConfigs = mkOption {
      type = types.listOf (types.attrsOf types.raw);
      default = [ ];
      example = lib.literalExpression "config.homelab.prometheus.scrapeConfigs";
      description = ''
        Scrape configs that this machine has for a Prometheus of its own. Targets on `localhost` are on this machine
        (docs/sources.md). They must not hold `config.services.clan-discovery.scrapeConfigs`.
      '';
    };
    tags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "laptop" ];
      description = ''
        Tags of this machine, for `policy` of the machine that scrapes: no alert fires while a machine with the tag
        `laptop` or `roaming` is off (docs/agents.md). In a clan, the inventory has them.
      '';
    };
  };

  config = {
    assertions = map (what: {
      assertion = false;
      message = "services.clan-discovery.${what}";
    }) (cd.exposed.complaintsOf cfg.expose);
    warnings = map (what: "services.clan-discovery.${what}") (
      cd.exposed.doubtsOf cfg.expose ++ lib.concatMap misspelt (lib.attrNames cfg.expose)
    );
  };
}
