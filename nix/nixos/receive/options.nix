# The options of `services.clan-discovery.front.receive`.
lib:
let
  inherit (lib) mkOption types;
in
import ./words.nix lib
// {
  enable = lib.mkEnableOption "receiving the metrics and logs that agents send (docs/agents.md)";

  internalPort = mkOption {
    type = types.port;
    default = 8426;
    description = "The port of vmauth's own metrics, on loopback.";
  };

  exposed = mkOption {
    type = types.listOf types.raw;
    default = [ ];
    internal = true;
    description = "What an inventory exposes of this machine, beside `expose`.";
  };

  guarded = mkOption {
    type = types.attrsOf types.str;
    default = { };
    internal = true;
    description = "The stores that other machines must not reach past the proxy, with how to close each.";
  };
}
