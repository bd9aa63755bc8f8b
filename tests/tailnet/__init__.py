"""A real tailnet on this machine alone: headscale, tailscaleds, exporters, scrapers, each host a namespace."""
