# inStore : path or string -> bool: whether the path is in the Nix store, or would be copied there.
{ lib }: path: lib.isPath path || lib.hasPrefix "${builtins.storeDir}/" (toString path)
