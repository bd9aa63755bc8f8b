"""Declared: what an inventory says, as bytes in and values out.

`clan/` reads clan's JSON, `exporters` knows the ports, `nix` asks Nix by `process`.
"""
