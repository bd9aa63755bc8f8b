module clan-discovery.test/tailscale

go 1.23.1

require tailscale.com v1.80.3
