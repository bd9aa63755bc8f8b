# The options of `services.clan-discovery.front.receive`.
lib:
import ./words.nix lib
// {
  enable = lib.mkEnableOption "receiving the metrics and logs that agents send (docs/agents.md)";
}
