{
  description = "A clan that checks the clan service through clan-core, which users of the service need not have";

  # `nix flake check ./tests/clan`, with Nix 2.26 or newer.
  inputs.clan-core.url = "https://git.clan.lol/clan/clan-core/archive/main.tar.gz";
  inputs.nixpkgs.follows = "clan-core/nixpkgs";
  inputs.clan-discovery.url = "path:../..";
  inputs.clan-discovery.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    { self, clan-core, ... }:
    let
      system = "x86_64-linux";
      machine = {
        nixpkgs.hostPlatform = system;
        boot.loader.grub.enable = false;
        fileSystems."/" = {
          device = "none";
          fsType = "tmpfs";
        };
        services.tailscale.enable = true;
        system.stateVersion = "26.05";
      };
      clan =
        (clan-core.lib.clan {
          inherit self;
          meta.name = "checks";
          meta.domain = "home.arpa";
          machines.monitor = machine;
          machines.db = machine;
          inventory = {
            machines.monitor = { };
            machines.db = { };
            instances.monitoring = {
              module.name = "prometheus";
              module.input = "clan-discovery";
              roles.server.machines.monitor.settings.discoveryMethod = "tailscale";
              roles.exporter.tags = [ "nixos" ];
              roles.exporter.machines.db.settings.exporters = {
                node = { };
                systemd = { };
              };
            };
          };
        }).config;
    in
    {
      inherit clan;
      inherit (clan) clanInternals nixosConfigurations;

      # /etc with the units and with Prometheus's config, which promtool checks.
      checks.${system} = builtins.mapAttrs (_: one: one.config.system.build.etc) clan.nixosConfigurations;
    };
}
