# Failing assertions and warnings with the prefix of this project.
{ lib }:
let
  said = message: "clan-discovery: ${message}";
  refuse = message: {
    assertion = false;
    message = said message;
  };
in
{
  inherit refuse;
  # refuseIf, warnIf : bool -> string -> [ assertion ] or [ warning ]: one or none.
  refuseIf = condition: message: lib.optional condition (refuse message);
  warnIf = condition: message: lib.optional condition (said message);
}
