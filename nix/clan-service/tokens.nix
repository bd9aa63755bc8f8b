# The tokens of agents as clan vars: one shared generator for each machine and generation, which the agent and the
# machines that receive declare, so that no other machine gets the token.
{ pkgs }:
let
  name = machine: generation: "prometheus-agent-token-${machine}-${toString generation}";
in
{
  inherit name;

  # generator : { machine, generation, restartUnits } -> clan.core.vars.generators
  # Units and owners of a shared generator may differ from machine to machine; the rest must be the same.
  generator =
    {
      machine,
      generation,
      restartUnits,
    }:
    {
      ${name machine generation} = {
        share = true;
        files.token = { inherit restartUnits; };
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
