# Datasources of Grafana, from what servers and stores of logs are.
{ lib, pkgs }:
let
  text = pkgs.writeText "clan-discovery-tenants";
in
{
  # server : { machine, url } -> datasource
  # VictoriaMetrics answers as Prometheus does.
  server =
    { machine, url }:
    {
      name = machine;
      uid = "clan-server-${machine}";
      type = "prometheus";
      inherit url;
      jsonData.httpMethod = "POST";
    };

  # storage : string -> datasource: what reads the nodes of the role storage as one.
  storage = url: {
    name = "storage";
    uid = "clan-storage";
    type = "prometheus";
    inherit url;
    jsonData.httpMethod = "POST";
  };

  # store : { machine, url, backend, tenants } -> datasource
  # Loki keeps the logs of each machine apart; Grafana reads those of all of them.
  store =
    {
      machine,
      url,
      backend,
      tenants,
    }:
    {
      name = "${machine} logs";
      uid = "clan-logs-${machine}";
      inherit url;
    }
    // (
      if backend == "loki" then
        {
          type = "loki";
          jsonData.httpHeaderName1 = "X-Scope-OrgID";
          # It is no secret. nixpkgs takes only values in files without a warning.
          secureJsonData.httpHeaderValue1 = "$__file{${text (lib.concatStringsSep "|" tenants)}}";
        }
      else
        { type = "victoriametrics-logs-datasource"; }
    );
}
