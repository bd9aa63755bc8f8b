# The boards as files, with the URL of the status page in their constant `page`.
{ lib, pkgs }:
let
  source = ../../../clan_discovery/data/dashboards;
  names = lib.filter (lib.hasSuffix ".json") (lib.attrNames (builtins.readDir source));

  # withPage : string -> board -> board
  withPage =
    page: board:
    lib.recursiveUpdate board {
      templating.list = map (
        variable:
        variable
        // lib.optionalAttrs (variable.name == "page") {
          query = page;
          current = {
            text = page;
            value = page;
          };
          options = [
            {
              text = page;
              value = page;
              selected = true;
            }
          ];
        }
      ) (board.templating.list or [ ]);
    };
in
rec {
  # of : string -> { <file> = board; }
  of =
    page:
    lib.genAttrs names (
      name: withPage page (builtins.fromJSON (builtins.readFile (source + "/${name}")))
    );

  # directory : string -> path
  directory =
    page:
    pkgs.linkFarm "clan-discovery-boards" (
      lib.mapAttrsToList (name: board: {
        inherit name;
        path = (pkgs.formats.json { }).generate name board;
      }) (of page)
    );
}
