# The configuration of Alertmanager, the secrets that it reads, and what is wrong with the settings.
{ lib }:
let
  inStore = import ../in-store.nix { inherit lib; };
  shipped = lib.importJSON ../../../clan_discovery/data/alertmanager.json;
  mailed = [
    "critical"
    "warning"
  ];

  # Secrets of Alertmanager. Most have a setting of the same name with `_file`. In `global`, the name of the integration
  # comes before them: opsgenie_api_key.
  secrets = [
    "api_key"
    "api_secret"
    "app_token"
    "auth_password"
    "auth_secret"
    "bot_token"
    "client_secret"
    "credentials"
    "password"
    "routing_key"
    "secret_key"
    "service_key"
    "slack_api_url"
    "token"
    "user_key"
    "webhook_url"
  ];
  # Files of these names are not secret.
  public = [
    "ca_file"
    "cert_file"
  ];

  # merged : value -> value -> value: sets are merged; lists of the first come first.
  merged =
    own: ours:
    if lib.isAttrs own && lib.isAttrs ours then
      ours // lib.mapAttrs (name: value: if ours ? ${name} then merged value ours.${name} else value) own
    else if lib.isList own && lib.isList ours then
      own ++ ours
    else
      own;

  # walk : (path -> name -> value -> value) -> path -> value -> value: every value that is no set and no list. `path` has
  # the names and the numbers that lead to it.
  walk =
    change: path: value:
    if lib.isAttrs value then
      lib.mapAttrs (name: inner: walk change (path ++ [ name ]) inner) value
    else if lib.isList value then
      lib.imap0 (index: inner: walk change (path ++ [ (toString index) ]) inner) value
    else
      change path value;
  # leaves : value -> [ { path; value; } ]: the same as a list.
  leaves =
    let
      below =
        path: value:
        if lib.isAttrs value then
          lib.concatLists (lib.mapAttrsToList (name: below (path ++ [ name ])) value)
        else if lib.isList value then
          lib.concatLists (lib.imap0 (index: below (path ++ [ (toString index) ])) value)
        else
          [ { inherit path value; } ];
    in
    below [ ];

  isFile =
    { path, value }:
    lib.hasSuffix "_file" (lib.last path) && lib.isString value && lib.hasPrefix "/" value;
  # Systemd reads it as root; Alertmanager has a user of its own.
  isCredential = leaf: isFile leaf && !inStore leaf.value;
  isSecret =
    { path, ... }:
    let
      name = lib.last path;
    in
    lib.any (secret: name == secret || lib.hasSuffix "_${secret}" name) secrets
    || name == "api_url" && lib.elem "slack_configs" path
    # http_headers.<name>.secrets is a list.
    || lib.elem "secrets" path;
  instead =
    path:
    if lib.elem "secrets" path then
      "`files` instead of `secrets`"
    else if lib.last path == "secret_key" then
      "`profile`, of a file with credentials on the machine"
    else
      "${lib.last path}_file, with the path of a file on the machine";
  isStored =
    { path, value }:
    lib.any (end: lib.hasSuffix end (lib.last path)) [
      "File"
      "_file"
    ]
    && !lib.elem (lib.last path) public
    && (lib.isString value || lib.isPath value)
    && inStore value;
  nameOf = lib.concatStringsSep "-";
  said = lib.concatStringsSep ".";
in
{
  # configOf : settings -> [ path ] -> { configuration; credentials; complaints; }
  # `templates` are the paths of the mail templates. A complaint begins with the name of the setting.
  configOf =
    settings: templates:
    let
      inherit (settings) mail deadMansSwitch receivers;
      hasMail = mail.to != [ ];
      ownOf = name: receivers.${name} or { };

      completed =
        { name, ... }@receiver:
        let
          mails = lib.optionals hasMail (
            map (one: one // { to = lib.concatStringsSep ", " mail.to; }) (receiver.email_configs or [ ])
          );
          hooks = lib.optionals (url != { }) (map (one: one // url) (receiver.webhook_configs or [ ]));
          complete = merged (ownOf name) {
            inherit name;
            email_configs = mails;
            webhook_configs = hooks;
          };
        in
        lib.filterAttrs (_: value: value != [ ]) complete;
      url =
        lib.optionalAttrs (deadMansSwitch.url != null) { inherit (deadMansSwitch) url; }
        // lib.optionalAttrs (deadMansSwitch.urlFile != null) { url_file = deadMansSwitch.urlFile; };

      global = lib.optionalAttrs hasMail (
        lib.filterAttrs (_: value: value != null) {
          smtp_from = mail.from;
          smtp_smarthost = mail.smarthost;
          smtp_auth_username = mail.username;
          smtp_auth_password_file = mail.passwordFile;
          # On this port, TLS begins at once, and older versions of Alertmanager would ask for it a second time.
          smtp_require_tls = mail.requireTls && !lib.hasSuffix ":465" (toString mail.smarthost);
        }
      );
      whole = merged settings.settings (
        shipped
        // {
          inherit templates;
          receivers = map completed shipped.receivers;
        }
        // lib.optionalAttrs (global != { }) { inherit global; }
      );
      # As the user wrote them.
      given = leaves {
        inherit (settings)
          deadMansSwitch
          mail
          receivers
          settings
          ;
      };

      isSilent =
        name:
        !lib.any (key: lib.hasSuffix "_configs" key) (
          lib.attrNames (lib.findFirst (one: one.name or null == name) { } whole.receivers)
        );
      silent = lib.filter isSilent mailed;
      missing = lib.filter (name: mail.${name} == null) [
        "from"
        "smarthost"
      ];
    in
    {
      # The file passes envsubst.
      configuration = walk (
        path: value:
        let
          read =
            if isCredential { inherit path value; } then
              "/run/credentials/alertmanager.service/${nameOf path}"
            else
              value;
        in
        if lib.isString read then lib.replaceStrings [ "$" ] [ "$$" ] read else read
      ) [ ] whole;

      # A percent sign is not a specifier of systemd.
      credentials = map ({ path, value }: "${nameOf path}:${lib.replaceStrings [ "%" ] [ "%%" ] value}") (
        lib.filter isCredential (leaves whole)
      );

      complaints =
        lib.optional (silent != [ ])
          ": no receiver gets alerts of the severity ${lib.concatStringsSep " and " silent}: set mail.to, mail.from and mail.smarthost, or ${
            lib.concatMapStringsSep " and " (name: "receivers.${name}") silent
          }"
        ++ map (
          name:
          ".mail.${name} is not set, and mail.to needs it: write for example ${
            {
              from = "\"alerts@example.org\"";
              smarthost = "\"mail.example.org:587\"";
            }
            .${name}
          }"
        ) (lib.optionals hasMail missing)
        ++ lib.optional (
          mail.smarthost != null && builtins.match ".*:[0-9]+" mail.smarthost == null
        ) ".mail.smarthost: '${mail.smarthost}' has no port: write for example \"${mail.smarthost}:587\""
        ++
          lib.optional (hasMail && mail.username != null && mail.passwordFile == null)
            ".mail.username is set, and mail.passwordFile is not: set it to the path of a file with the password"
        ++ lib.optional (
          deadMansSwitch.url != null && deadMansSwitch.urlFile != null
        ) ".deadMansSwitch takes `url` or `urlFile`, not both"
        ++ map (
          { path, ... }:
          ".${said path} would be in the Nix store, which every user can read: write ${instead path}"
        ) (lib.filter isSecret given)
        ++ map (
          { path, value }:
          ".${said path} is ${toString value}, in the Nix store, which every user can read: write the path of a file on the machine, for example \"/run/secrets/alerting\""
        ) (lib.filter isStored given);
    };
}
