# As small as a clan can be for `nix eval`: what clan-core would compute stands here as values. A scope whose value is
# not generated yet throws, as clan-core's getPublicValue does.
{
  outputs = { self }: {
    clanInternals.inventoryClass.inventorySerialization = {
      machines = {
        monitor.tags = [
          "all"
          "nixos"
        ];
        db.tags = [
          "all"
          "nixos"
        ];
      };
      tags.all = [
        "db"
        "monitor"
      ];
      meta.domain = "home.arpa";
      instances.monitoring = {
        module = {
          name = "prometheus";
          input = "self";
        };
        roles.exporter = {
          tags.all.settings.imports = [
            {
              _file = "${self}/clan.nix, via option x";
              imports = [ { } ];
            }
          ];
          settings.imports = [ { port = 9200; } ];
        };
        roles.server.machines.monitor.settings.imports = [ { } ];
      };
    };
    clan._services.allServices."self-prometheus".instances.monitoring = {
      evaluated = throw "whoever looks here asks for more than the settings";
      roles.exporter.machines.db.finalSettings = {
        config.port = 9300;
        options = throw "no";
      };
      roles.exporter.machines.monitor.finalSettings.config.port = 9200;
      roles.server = { };
    };
    clan._services.allServices."clan-core-borgbackup".instances.backup.roles.client.machines = {
      db.finalSettings.config.destinations.nas =
        throw "The option `repo' was accessed but has no value defined.";
      monitor.finalSettings.config.package = {
        type = "derivation";
        outPath = "/nix/store/00000000000000000000000000000000-borg";
        tests = throw "whoever looks here asks for more than its path";
      };
    };
    clan.exports = {
      "clan-core/wireguard:wg::" = {
        networking = {
          module = "clan_lib.network.direct";
          priority = 1000;
        };
        peer = null;
      };
      "clan-core/wireguard:wg:peer:db" = {
        networking = null;
        peer.hosts = [ { plain = "db.wg"; } ];
      };
      "clan-core/yggdrasil:ygg:default:db".peer.hosts = [
        { plain = throw "getPublicValue: Public value db/yggdrasil/address not found!"; }
      ];
      "clan-core/tor:tor::db" = throw "all of it is broken";
    };
  };
}
