"""A real tailnet on this machine: headscale, tailscaleds, exporters, scrapers; each host is a namespace."""
