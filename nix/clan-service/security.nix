# `security` of exporters: the web config of the exporters on this machine, and what its scraper needs to read them.
#
# Files reach the units as credentials of systemd, because most exporters have dynamic users. Their paths are fixed, so
# that they can stand in scrape configs, and in units that escape the specifier `%d`.
{
  lib,
  cd,
  config,
  options,
  pkgs,
  ...
}:
let
  shared = import ./common.nix { inherit lib cd; };
  serverName = "prometheus-exporter";
  vars = import ./vars.nix { inherit pkgs serverName; };
  hasVars = lib.hasAttrByPath [ "clan" "core" "vars" ] options;
  generated =
    generator: file:
    let
      found = config.clan.core.vars.generators.${generator}.files.${file};
    in
    # A public file that is not generated yet has no path. `clan vars generate` evaluates the machine before that.
    if found.secret || found.exists then found.path else "/no-such-path";
  generators = lib.optionalAttrs hasVars;

  credential = unit: name: "/run/credentials/${unit}.service/${name}";
  # loaded : { <name> = path; } -> LoadCredential=
  loaded = lib.mapAttrsToList (name: path: "${name}:${path}");
  inStore = import ../nixos/in-store.nix { inherit lib; };

  inherit (import ./messages.nix { inherit lib; }) refuse;
  files = member: lib.filterAttrs (_: path: path != null) (member.settings.securityFiles or { });

  # A secret in the store is readable by every user.
  exposed =
    names: member:
    lib.mapAttrsToList (
      name: path:
      refuse "${member.where}.securityFiles.${name}: ${toString path} is, or would be copied, in the Nix store, which every user can read: write a path on the machine as a string, for example \"/run/secrets/${name}\""
    ) (lib.filterAttrs (name: path: lib.elem name names && inStore path) (files member));

  # Older versions of clan-core have no vars: then every file must be named.
  needs =
    wanted: member:
    let
      missing = lib.subtractLists (lib.attrNames (files member)) wanted;
    in
    lib.optional (missing != [ ] && (!hasVars || missing != wanted)) (
      refuse "${member.where}.securityFiles: set ${lib.concatStringsSep " and " missing}, too${
        lib.optionalString (!hasVars) ": this clan-core has no vars"
      }"
    );

  ofKind = kind: lib.filter (entry: entry.exporter.security == kind);
  names = {
    tls = [
      "certificate"
      "key"
    ];
    basic-auth = [ "webConfig" ];
  };
in
{
  # exporter : [ entry ] -> definitions
  # An entry is an exporter of NixOS on this machine, with its member of the role.
  exporter =
    entries:
    let
      byType = lib.groupBy (entry: entry.type) entries;
      secured = lib.filter (entry: entry.exporter.security != "none") (
        map lib.head (lib.attrValues byType)
      );
      unitOf = entry: "prometheus-${entry.type}-exporter";
      unitsOf = kind: map (entry: "${unitOf entry}.service") (ofKind kind secured);

      credentialsOf =
        entry:
        let
          own = files entry;
        in
        if entry.exporter.security == "tls" then
          {
            "web.crt" = own.certificate or (generated "prometheus-certificate" "web.crt");
            "web.key" = own.key or (generated "prometheus-certificate" "web.key");
          }
        else
          { "web.yml" = own.webConfig or (generated "prometheus-web-config" "web.yml"); };
      # Paths in it start at its directory. JSON is YAML.
      webConfig.tls_server_config = {
        cert_file = "web.crt";
        key_file = "web.key";
      };
      flagOf = entry: "--web.config.file=${credential (unitOf entry) "web.yml"}";
      # Without the flag, the exporter serves everybody and servers do not notice; with two, it does not start.
      unflagged =
        entry:
        let
          option = "services.prometheus.exporters.${entry.type}";
          exporter = config.services.prometheus.exporters.${entry.type};
        in
        lib.optional (lib.filter (lib.hasInfix "web.config.file") exporter.extraFlags != [ (flagOf entry) ])
          (
            refuse "${option}.extraFlags must have --web.config.file once, from ${entry.where}.security: remove yours, and do not replace the list with mkForce"
          )
        ++ lib.optional (exporter.webConfigFile or null != null) (
          refuse "${option}.webConfigFile is set, but ${entry.where}.security makes the web config: remove one"
        );
      # mysqld's module forces its own credentials.
      join = entry: if entry.type == "mysqld" then lib.mkForce else lib.id;
    in
    generators {
      clan.core.vars.generators = lib.mkMerge (
        lib.optionals (lib.any (entry: !(files entry ? key)) (ofKind "tls" secured)) [
          vars.ca
          (vars.certificate (unitsOf "tls"))
        ]
        ++ lib.optionals (lib.any (entry: !(files entry ? webConfig)) (ofKind "basic-auth" secured)) [
          vars.password
          (vars.webConfig (unitsOf "basic-auth"))
        ]
      );
    }
    // {
      services.prometheus.exporters = lib.mkMerge (
        map (entry: {
          ${entry.type}.extraFlags = [ (flagOf entry) ];
        }) secured
      );
      systemd.services = lib.mkMerge (
        map (entry: {
          ${unitOf entry}.serviceConfig = {
            LoadCredential = join entry (loaded (credentialsOf entry));
          }
          // lib.optionalAttrs (entry.exporter.security == "tls") {
            SetCredential = [ "web.yml:${builtins.toJSON webConfig}" ];
          };
        }) secured
      );
      assertions = lib.unique (
        lib.concatMap (exposed [
          "key"
          "webConfig"
        ]) entries
        ++ lib.concatMap (entry: needs names.${entry.exporter.security} entry) secured
        ++ lib.concatMap unflagged secured
        ++ lib.concatMap (
          entries:
          let
            differ = map (entry: {
              inherit (entry.exporter) security;
              files = files entry;
            }) entries;
          in
          lib.optional (lib.length (lib.unique differ) > 1) (
            refuse "${
              lib.concatMapStringsSep " and " (entry: "${entry.where}.security") entries
            } differ for ${(lib.head entries).type}: NixOS has one exporter of each type: set the same, or remove one"
          )
        ) (lib.attrValues byType)
      );
    };

  # server : { seen; darwin; member; } -> { definitions; jobs; }
  # `darwin` is `policy.darwin`. `jobs` is merged into the jobs of these names.
  server =
    {
      seen,
      darwin,
      member,
    }:
    let
      inherit (member.settings) backend;
      own = files member;
      scraped = cd.declared.jobsOf (seen // { darwin = "include"; });
      exporters = lib.filter (entry: lib.elem entry.type scraped && !seen.isAgent entry.machine) (
        seen.entriesOf seen.exporters
      );
      tls = ofKind "tls" exporters;
      basic = ofKind "basic-auth" exporters;

      # The generated CA is public and in the store, where the build can check it.
      ca = if own ? ca then credential backend "clan-ca" else generated "prometheus-ca" "ca.crt";
      credentials =
        lib.optionalAttrs (tls != [ ] && own ? ca) { clan-ca = own.ca; }
        // lib.optionalAttrs (basic != [ ]) {
          clan-password = own.password or (generated "prometheus-server-password" "password");
        };
      unreadable = credentials != { };

      # A scraper sends one kind of credentials, and refuses a config with two.
      credentialed =
        type:
        let
          given = config.services.clan-discovery.settings.jobs.${type} or { };
          others = lib.filter (name: given.${name} or null != null) [
            "authorization"
            "bearer_token"
            "bearer_token_file"
            "oauth2"
          ];
        in
        lib.optional (others != [ ]) (
          refuse "jobs.${type}.${lib.concatStringsSep " and " others}: exporters of this type have `security` \"basic-auth\", so their servers send a password: remove one of both"
        );

      # A generated certificate is not signed by a CA of the user's, and so on.
      strangers =
        name: kind: entries:
        let
          differing = lib.filter (
            entry: lib.any (one: files entry ? ${one}) names.${kind} != own ? ${name}
          ) entries;
        in
        lib.optional (differing != [ ]) (
          refuse "${member.where}.securityFiles.${name} is ${
            if own ? ${name} then "set, but not" else "not set, but"
          } ${
            lib.concatStringsSep " and " names.${kind}
          } in ${(lib.head differing).where}.securityFiles: set all of them or none"
        );
    in
    {
      jobs = lib.mapAttrs (
        _: entries:
        lib.optionalAttrs (ofKind "tls" entries != [ ]) {
          tls_config = {
            ca_file = ca;
            server_name = serverName;
          };
        }
        // lib.optionalAttrs (ofKind "basic-auth" entries != [ ]) {
          basic_auth = {
            username = "prometheus";
            password_file = credential backend "clan-password";
          };
        }
      ) (lib.groupBy (entry: entry.type) (tls ++ basic));

      definitions =
        generators {
          clan.core.vars.generators = lib.mkMerge (
            lib.optional (tls != [ ] && !(own ? ca)) vars.ca
            ++ lib.optionals (basic != [ ] && !(own ? password)) [
              vars.password
              (vars.serverPassword [ "${backend}.service" ])
            ]
          );
        }
        // {
          systemd.services = lib.mkIf unreadable {
            ${backend}.serviceConfig.LoadCredential = loaded credentials;
          };
          services = lib.mkIf unreadable {
            ${backend} = lib.optionalAttrs (options.services.${backend} ? checkConfig) {
              checkConfig = lib.mkDefault (if backend == "prometheus" then "syntax-only" else false);
            };
          };
          warnings =
            map
              (
                job:
                "clan-discovery: ${member.where}: the password of `security` is also sent to the targets of job ${job} in staticTargets and dnsDiscovery: move them to `additionalScrapeConfigs` if they must not have it"
              )
              (
                lib.attrNames (
                  lib.intersectAttrs (lib.groupBy (entry: entry.type) basic) (
                    member.settings.staticTargets // member.settings.dnsDiscovery
                  )
                )
              );
          assertions =
            exposed [ "password" ] member
            ++ lib.optionals (tls != [ ]) (needs [ "ca" ] member ++ strangers "ca" "tls" tls)
            ++ lib.concatMap credentialed (lib.attrNames (lib.groupBy (entry: entry.type) basic))
            ++ lib.optionals (basic != [ ]) (
              needs [ "password" ] member ++ strangers "password" "basic-auth" basic
            )
            ++ map (entry: refuse (shared.plainOnDarwin entry)) (
              lib.filter (entry: darwin != "exclude" && entry.type == "node" && seen.isDarwin entry.machine) (
                tls ++ basic
              )
            );
        };
    };
}
