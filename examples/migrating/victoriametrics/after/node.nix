{
  services.prometheus.exporters.node = {
    enable = true;
    listenAddress = "127.0.0.1";
  };

  services.clan-discovery.expose.node = {
    port = 9100;
    loopback = true;
  };
}
