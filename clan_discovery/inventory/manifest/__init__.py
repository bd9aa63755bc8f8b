"""The service manifest as a source: a file of services, each with its machine, its address and its proxies."""
