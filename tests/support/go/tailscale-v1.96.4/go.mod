module clan-discovery.test/tailscale

go 1.26.1

require tailscale.com v1.96.4
