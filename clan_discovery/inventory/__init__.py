"""Read what an inventory declares.

`clan/` reads clan's JSON, `exporters` knows the ports, `queries` has the Nix expressions, `nix` evaluates them, and
`process` runs Nix.
"""
