"""A DNS client: names, messages, transports and servers. It knows nothing of targets."""
