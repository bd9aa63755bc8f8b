"""Declared: the bytes of a clan inventory become expected targets.

`wire` reads the JSON as clan writes it, `tags` decides who is a member of what, `settings` merges as the module
system does, `exporters` knows the ports, `service` knows the vocabulary of the prometheus service, `declare`
puts them together, `exports` knows where the clan's own networks have machines, `flake` asks Nix, as a `child`.
"""
