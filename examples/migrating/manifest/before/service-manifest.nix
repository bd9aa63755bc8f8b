# Which service runs where. Deployment reads this file.
let
  active = unit: "systemctl is-active --quiet ${unit}";
  health = unit: {
    startup = active unit;
    liveness = active unit;
  };
in
{
  network.domain = "lab.example.org";

  core_services = {
    postgresql = {
      enable = true;
      ip = "10.20.0.11";
      hostname = "postgresql.lab.example.org";
      interface.health = health "postgresql";
    };
    proxy = {
      enable = true;
      ip = "10.20.0.12";
      hostname = "proxy.lab.example.org";
      interface.health = health "caddy";
    };
  };

  services = {
    monitoring = {
      enable = true;
      ip = "10.20.0.13";
      hostname = "monitoring.lab.example.org";
      depends_on = [ "postgresql" ];
      interface = {
        proxy = {
          grafana = {
            domain = "grafana.lab.example.org";
            upstream = "10.20.0.13:3000";
          };
        };
        health = health "grafana";
      };
    };
    mail = {
      enable = false;
      ip = "10.20.0.14";
      hostname = "mail.lab.example.org";
      interface.health = health "postfix";
    };
  };
}
