{
  services.jellyfin.enable = true;

  services.clan-discovery.expose.jellyfin = {
    port = 8096;
    loopback = true;
    front.domain = "films";
  };
}
