# Every exporter type of the tree on one machine: declared in the inventory, and enabled by hand with the same settings.
t:
let
  inherit (t) lib;

  found = lib.filterAttrs (_: option: option ? type && option.type.getSubOptions [ ] ? enable) (
    t.options.services.prometheus.exporters.type.getSubOptions [ ]
  );
  # `unifi-poller` is the old name of `unpoller`. The other two have no system in this tree, however they are enabled:
  # `libvirt` needs Haskell's packages, which it lacks, and `varnish` sets an option that was removed.
  types = lib.subtractLists [
    "libvirt"
    "unifi-poller"
    "varnish"
  ] (lib.attrNames found);

  file = "/run/secrets/exporter";
  # What a type needs to have a system at all.
  settings = {
    artifactory.artiUsername = "u";
    bitcoin.rpcPasswordFile = file;
    blackbox = {
      configFile = file;
      enableConfigCheck = false;
    };
    deluge.delugePasswordFile = file;
    dmarc.imap = {
      username = "u";
      passwordFile = file;
    };
    fail2ban.fail2banSocket = "/run/fail2ban/fail2ban.sock";
    fastly.environmentFile = file;
    flow = {
      asn = 64500;
      brokers = [ "kafka.example.org:9092" ];
      topic = "flows";
    };
    idrac.configurationPath = file;
    json.configFile = file;
    lnd = {
      lndMacaroonDir = "/run/secrets";
      lndTlsPath = file;
    };
    mail.configFile = file;
    mail-tlsa-check.settings = {
      smtp.hostname = "mail.example.org";
      tlsa.record = "_25._tcp.mail.example.org";
    };
    mailman3.mailman.passFile = file;
    mikrotik.configFile = file;
    mysqld.configFile = file;
    nextcloud = {
      passwordFile = file;
      url = "https://cloud.example.org";
    };
    pgbouncer.connectionEnvFile = file;
    postfix.group = "postdrop";
    py-air-control.deviceHostname = "air.example.org";
    restic = {
      passwordFile = file;
      repository = "/srv/restic";
    };
    sabnzbd.servers = [
      {
        apiKeyFile = file;
        baseUrl = "http://localhost:8080";
      }
    ];
    shelly.metrics-file = file;
    snmp = {
      configurationPath = file;
      enableConfigCheck = false;
    };
    sql.configFile = file;
    storagebox.tokenFile = file;
    tailscale.environmentFile = file;
    tibber.apiTokenPath = file;
  };
  settingsOf = lib.genAttrs types (type: settings.${type} or { });

  machine.nixpkgs.config.allowUnfree = true;
  clan = t.clan {
    inventory = {
      machines.all = { };
      machines.monitor = { };
      instances.monitoring = {
        module.name = "prometheus";
        module.input = "clan-discovery";
        roles.server.machines.monitor.settings.firewallInterfaces = [ ];
        roles.exporter.machines.all.settings = {
          firewallInterfaces = [ ];
          exporters = settingsOf;
        };
      };
    };
    machines.all = machine;
  };
  see = config: {
    units = lib.genAttrs types (type: config.systemd.units."prometheus-${type}-exporter.service".text);
    failed = t.failed config;
  };
in
{
  inherit settings types;
  ours = see clan.nixosConfigurations.all.config;
  plain = see (
    t.nixos [
      machine
      {
        services.prometheus.exporters = lib.mapAttrs (_: one: one // { enable = true; }) settingsOf;
      }
    ]
  );
}
