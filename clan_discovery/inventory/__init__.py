"""Declared: what an inventory says, as bytes in and values out.

`clan/` reads clan's JSON, `exporters` knows the ports, `queries` names what Nix is asked, `nix` asks it by `process`.
"""
