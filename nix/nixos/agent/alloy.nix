# The config of Alloy that sends the journal to Loki. The receiver gives each machine a tenant of its own, so a stream is
# a unit of the machine.
{ lib }:
{
  urls,
  tokenFile,
  caFile,
  retention,
}:
let
  text = builtins.toJSON;
  units = {
    h = 1;
    d = 24;
    w = 168;
    y = 8760;
  };
  parts = builtins.match "([0-9]+)(h|d|w|y)" retention;
  hours = lib.toInt (lib.head parts) * units.${lib.last parts};

  endpoint = url: ''
    endpoint {
      url = ${text "${url}/loki/api/v1/push"}
      bearer_token_file = ${text tokenFile}
      // Never give up.
      max_backoff_retries = 0
      max_backoff_period = "15s"
    ${lib.optionalString (caFile != null) ''
      tls_config {
        ca_file = ${text caFile}
      }
    ''}
    }
  '';
in
''
  loki.source.journal "clan_discovery_agent" {
    // All fields of the entry.
    format_as_json = true
    // Older entries would be skipped after a start; the default is 7h.
    max_age = "${toString hours}h"
    relabel_rules = loki.relabel.clan_discovery_agent.rules
    forward_to = [loki.write.clan_discovery_agent.receiver]
  }

  loki.relabel "clan_discovery_agent" {
    forward_to = []
    rule {
      source_labels = ["__journal__systemd_unit"]
      target_label = "unit"
    }
  }

  loki.write "clan_discovery_agent" {
  ${lib.concatMapStrings endpoint urls}
  }
''
