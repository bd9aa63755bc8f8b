"""Look up names in DNS: names, messages, transports and servers."""
