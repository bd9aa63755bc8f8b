# Static mode, without a VM: the build renders the target files, and promtool accepts the scrape configs.
{ pkgs, module }:
let
  json = pkgs.formats.json { };
  inherit
    (pkgs.nixos {
      imports = [ module ];
      system.stateVersion = pkgs.lib.trivial.release;
      services.clan-discovery = {
        enable = true;
        mode = "static";
        jobs = [
          "nginx"
          "node"
        ];
        settings.server = "monitor";
        settings.inventory.file = json.generate "inventory.json" {
          machines.monitor = { };
          machines.db = { };
          meta.domain = "fleet.test";
          instances.monitoring = {
            module.name = "prometheus";
            roles.server.machines.monitor = { };
            roles.exporter.tags = [ "all" ];
          };
        };
      };
    })
    config
    ;
  targets = config.environment.etc."clan-discovery/targets".source;
  prometheus = json.generate "prometheus.json" {
    scrape_configs = config.services.clan-discovery.scrapeConfigs;
  };
in
pkgs.runCommand "clan-discovery-static" { nativeBuildInputs = [ pkgs.prometheus.cli ]; } ''
  grep -F '"db.fleet.test:9100"' ${targets}/node.json
  test "$(cat ${targets}/nginx.json)" = "[]"
  sed 's|/etc/clan-discovery/targets|${targets}|' ${prometheus} > prometheus.json
  promtool check config prometheus.json
  touch $out
''
