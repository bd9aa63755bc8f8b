# The tokens of agents as clan vars: one shared generator for each machine and generation, which the agent and the
# machines that receive declare, so that nobody else gets the token.
{ pkgs }:
let
  name = machine: generation: "prometheus-agent-token-${machine}-${toString generation}";
in
{
  inherit name;

  # generator : string -> int -> clan.core.vars.generators
  # It must be the same on every machine that declares it, with the units, too: what differs is per machine.
  generator = machine: generation: {
    ${name machine generation} = {
      share = true;
      files.token = { };
      runtimeInputs = [
        pkgs.coreutils
        pkgs.openssl
      ];
      # 43 characters of base64url, as `clan-discovery token new` makes them.
      script = ''
        openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n' > "$out/token"
      '';
    };
  };

  # fileOf : config -> string -> int -> path of the token on this machine
  fileOf =
    config: machine: generation:
    config.clan.core.vars.generators.${name machine generation}.files.token.path;
}
