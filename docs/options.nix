# The options of the NixOS module, and the settings of the roles of the clan service, as data for docs/options.md.
{ nixpkgsLib }:
let
  t = import ../tests/nix/machine.nix { inherit nixpkgsLib; };
  inherit (t) lib cd;
  interface = import ../nix/clan-service/interface.nix { inherit cd; };

  # Defaults and examples as Nix; what they are made of is not shown.
  written =
    value: if value ? _type && value ? text then value.text else lib.generators.toPretty { } value;
  described = text: if lib.isAttrs text then text.text else text;
  documented =
    options:
    map
      (option: {
        inherit (option) name type;
        description = described (option.description or "");
        default = if option ? default then written option.default else null;
        example = if option ? example then written option.example else null;
      })
      (
        lib.filter (option: option.visible && !option.internal && !lib.hasPrefix "_module" option.name) (
          lib.optionAttrSetToDocList options
        )
      );
  optionsOf =
    modules:
    (lib.evalModules {
      specialArgs.meta = { };
      inherit modules;
    }).options;
in
{
  module = documented (t.optionsOf [ ../nix/nixos ]).services.clan-discovery;
  server = documented (optionsOf [ interface.server ]);
  exporter = documented (optionsOf [ interface.exporter ]);
  front = documented (optionsOf [ interface.front ]);
  agent = documented (optionsOf [ interface.agent ]);
  logs = documented (optionsOf [ interface.logs ]);
  alerting = documented (optionsOf [ interface.alerting ]);
  dashboards = documented (optionsOf [ interface.dashboards ]);
  storage = documented (optionsOf [ interface.storage ]);
}
