# What an evaluation refuses in scrape configs of jobs (`settings.jobs`), and secrets in `settings.verify`. The build
# checks every key.
{ lib, cd }:
let
  # Python refuses the same keys (`config/words.py`).
  reasonOf =
    key:
    if key == "job_name" then
      "the name of the job is its exporter type: remove it"
    else if key == "static_configs" || lib.hasSuffix "_sd_configs" key then
      "the targets of the job are those of its target file: remove it, and use `staticTargets` or a scrape config of your own for more targets"
    else
      null;

  secrets = {
    "authorization.credentials" = "authorization.credentials_file";
    "basic_auth.password" = "basic_auth.password_file";
    "bearer_token" = "authorization.credentials_file";
    "oauth2.client_secret" = "oauth2.client_secret_file";
    "oauth2.tls_config.key" = "oauth2.tls_config.key_file";
    "tls_config.key" = "tls_config.key_file";
  };

  programSecrets = {
    "basic_auth.password" = "basic_auth.password_file";
    "bearer_token" = "bearer_token_file";
  };

  # exposed : { <secret> = <key of its file>; } -> string -> settings -> [ string ]: secrets that everybody could read.
  exposed =
    secrets: where: said:
    let
      valueOf = path: lib.attrByPath (lib.splitString "." path) null said;
      isExposed = path: lib.types.path.check (valueOf path) && inStore (valueOf path);
      open = lib.filter (path: lib.hasAttrByPath (lib.splitString "." path) said) (lib.attrNames secrets);
      files = lib.unique (lib.attrValues secrets ++ [ "bearer_token_file" ]);
    in
    map (
      path:
      "${where}.${path}: is a secret, and everybody can read the store: put it in a file, and set `${secrets.${path}}`"
    ) open
    ++ map (
      path:
      "${where}.${path}: ${toString (valueOf path)} is, or would be copied, in the Nix store, which everybody can read: write a path on the machine as a string, for example \"/run/secrets/${lib.last (lib.splitString "." where)}\""
    ) (lib.filter isExposed files);

  inStore = import ./in-store.nix { inherit lib; };
  suggest = import ./suggest.nix { inherit lib; };
in
{
  # refused : { <job> = settings; } -> [ string ]: keys that would break discovery, and secrets in the store.
  refused =
    jobs:
    lib.concatMap (
      job:
      let
        said = jobs.${job};
        keys = lib.filter (key: reasonOf key != null) (lib.attrNames said);
      in
      map (key: "jobs.${job}.${key}: cannot be set, because ${reasonOf key}") keys
      ++ exposed secrets "jobs.${job}" said
    ) (lib.attrNames jobs);

  # exposedPrograms : settings.verify -> [ string ]
  exposedPrograms =
    verify:
    lib.concatLists (
      lib.mapAttrsToList (
        kind: programs:
        lib.concatLists (
          lib.mapAttrsToList (
            name: program:
            lib.optionals (lib.isAttrs program) (exposed programSecrets "verify.${kind}.${name}" program)
          ) (if lib.isAttrs programs then programs else { })
        )
      ) (if verify == null then { } else verify)
    );

  # unknown : { <job> = settings; } -> [ string ] -> [ string ]: names that are neither a job nor an exporter type.
  unknown =
    jobs: known:
    map (
      job:
      "jobs.${job}: this server has no job '${job}': ${
        suggest job known "its jobs are ${lib.concatStringsSep ", " known}"
      }"
    ) (lib.filter (job: !(cd.exporters ? ${job})) (lib.subtractLists known (lib.attrNames jobs)));

  # unused : { <job> = settings; } -> [ string ] -> [ string ]: exporter types that no machine has.
  unused =
    jobs: known:
    map (job: "jobs.${job}: no machine has an exporter '${job}': this scrape config is not used") (
      lib.filter (job: cd.exporters ? ${job}) (lib.subtractLists known (lib.attrNames jobs))
    );
}
