module clan-discovery.test/tailscalesd

go 1.26.4

require github.com/cfunkhouser/tailscalesd v0.5.0
