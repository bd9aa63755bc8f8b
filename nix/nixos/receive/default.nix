# `services.clan-discovery.front.receive`: nginx or vmauth receives what agents send, and writes it to the stores under
# the name that each token stands for.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.clan-discovery;
  inherit (cfg) front;
  inherit (front) receive;
  unit = import ./unit.nix;
  guard = import ./guard.nix {
    inherit lib config;
    exposed = lib.mapAttrsToList (name: one: { inherit name; } // one) cfg.expose ++ receive.exposed;
  };
  inStore = import ../in-store.nix { inherit lib; };
  render = import ../render.nix { inherit lib pkgs cfg; };

  kind =
    if receive.kind != null then
      receive.kind
    else if front.kind == "nginx" then
      "nginx"
    else
      "vmauth";
  isNginx = kind == "nginx";
  # The user has a directory of token files.
  isDirectory = cfg.settings.front.receive.tokens != unit.credentials;
  number = unit.count receive.tokens;
  # vmauth reads a slow request while VictoriaMetrics waits for it, which takes two for each CPU at a time by default: so one
  # agent could stop all. 1000 is vmauth's own limit.
  inserts = lib.min 1000 (
    receive.limits.connections * lib.max 1 (lib.length (lib.attrNames receive.tokens)) + 16
  );
  inherit (config.services) nginx;
  systemctl = "/run/current-system/systemd/bin/systemctl";
  script = pkgs.writeShellScript "clan-discovery-receive" (
    unit.script {
      inherit kind systemctl;
      coreutils = "${pkgs.coreutils}/bin";
      cmp = "${pkgs.diffutils}/bin/cmp";
    }
  );

  # vmauth's certificate, as files.
  acmeHost = if lib.isAttrs front.tls then front.tls.useACMEHost else null;
  acme = config.security.acme.certs.${acmeHost};
  hasCertificate = lib.isAttrs front.tls;
  credential = name: "/run/credentials/clan-discovery-vmauth.service/${name}";

  onLoopback =
    isNginx
    && cfg.settings.front.listen or [ ] != [ ]
    && lib.all (import ../../lib).service.isLoopback cfg.settings.front.listen;
  stored = lib.filterAttrs (_: files: files != [ ]) (
    lib.mapAttrs (_: lib.filter inStore) receive.tokens
  );

  # The stores of this machine that get what agents send.
  isWritten =
    name:
    let
      port = guard.portOf name;
      isOn = url: url != null && port != null && builtins.match ".*:${toString port}(/.*)?" url != null;
    in
    isOn receive.metrics.url || isOn receive.logs.url;

  complaints =
    lib.optional (isNginx && front.kind != "nginx")
      "front.receive.kind is \"nginx\", but the proxy is ${front.kind}: set front.kind = \"nginx\", or receive.kind = \"vmauth\", which receives on a port of its own"
    ++
      lib.optional (front.tls == "off" && !onLoopback)
        "front.tls is \"off\", and agents would send their tokens in clear text: set front.tls.useACMEHost, or `certificate` and `key`"
    ++
      lib.optional (!isNginx && lib.isString front.tls && front.tls != "off")
        "front.tls is \"${front.tls}\", but vmauth gets no certificates itself: set front.tls.useACMEHost, or `certificate` and `key`"
    ++ lib.optional (
      receive.metrics.url == null && receive.logs.url == null
    ) "front.receive has no store: set receive.metrics.url, receive.logs.url, or both"
    ++
      lib.optional (number == 0 && !isDirectory)
        "front.receive.tokens is empty, and no agent could send anything: name the files of each agent's tokens"
    ++
      lib.optional (number > unit.most && !isDirectory)
        "front.receive.tokens has ${toString number} files, and systemd passes ${toString unit.most} to a unit: put them into one directory that the user ${unit.user} can read, and set services.clan-discovery.settings.front.receive.tokens to it"
    ++ lib.mapAttrsToList (
      machine: files:
      "front.receive.tokens.${machine}: ${lib.concatStringsSep ", " files} is in the Nix store, which every user can read: write a path on the machine as a string, for example \"/run/secrets/agent-${machine}\""
    ) stored;
in
{
  options.services.clan-discovery.front.receive = import ./options.nix lib;

  config = lib.mkMerge [
    (lib.mkIf receive.enable {
      services.clan-discovery.front = {
        enable = lib.mkDefault true;
        receive.guarded = lib.genAttrs (lib.filter isWritten guard.names) (
          _: lib.mkDefault "listen on loopback, or close the port"
        );
      };
      services.clan-discovery.settings.front.receive = {
        inherit kind;
        inherit (receive) domain;
        limits = lib.mapAttrs (_: lib.mkDefault) receive.limits;
        tokens = lib.mkDefault unit.credentials;
        file = unit.file kind;
        metrics = lib.mkIf (receive.metrics.url != null) receive.metrics.url;
        logs = lib.mkIf (receive.logs.url != null) {
          inherit (receive.logs) url;
          kind = lib.mkIf (receive.logs.kind != null) receive.logs.kind;
        };
        group = lib.mkIf isNginx nginx.group;
      };
      assertions = map (message: {
        assertion = false;
        message = "clan-discovery: ${message}";
      }) complaints;

      services.victoriametrics.extraOptions = lib.mkMerge [
        (import ./store-flags.nix)
        # Before the user's: the last one holds.
        (lib.mkIf (!isNginx) (lib.mkBefore [ "-maxConcurrentInserts=${toString inserts}" ]))
      ];

      users.users.${unit.user} = {
        isSystemUser = true;
        group = unit.user;
        description = "Tokens of the agents of clan-discovery";
      };
      users.groups.${unit.user} = { };

      systemd.services.clan-discovery-receive = unit.service {
        inherit kind script systemctl;
        inherit (cfg) package;
        inherit (render) config;
        tokens = if isDirectory then null else receive.tokens;
        group = if isNginx then nginx.group else null;
      };
      systemd.services.clan-discovery-receive-reload = unit.reload script;
    })
    (lib.mkIf (receive.enable && isNginx) {
      services.nginx = {
        appendHttpConfig = "include ${unit.included};";
        # For the map of tokens.
        mapHashBucketSize = lib.mkDefault 128;
        mapHashMaxSize = lib.mkDefault 8192;
      };
    })
    (lib.mkIf (receive.enable && !isNginx && hasCertificate) {
      systemd.services.clan-discovery-vmauth = lib.mkMerge [
        (unit.vmauth {
          package = pkgs.victoriametrics;
          kill = "${pkgs.coreutils}/bin/kill";
          inherit (receive) port internalPort;
          tls =
            if acmeHost != null then
              {
                certificate = "${acme.directory}/fullchain.pem";
                key = "${acme.directory}/key.pem";
              }
            else
              lib.genAttrs [ "certificate" "key" ] credential;
          group = if acmeHost != null then acme.group else null;
        })
        {
          wants = lib.mkIf (acmeHost != null) [ "acme-${acmeHost}.service" ];
          after = lib.mkIf (acmeHost != null) [ "acme-${acmeHost}.service" ];
          serviceConfig.LoadCredential = lib.mkIf (acmeHost == null) (
            map (name: "${name}:${front.tls.${name}}") [
              "certificate"
              "key"
            ]
          );
        }
      ];
      networking.firewall.allowedTCPPorts = lib.mkIf front.openFirewall [ receive.port ];
    })
    {
      assertions = map (message: {
        assertion = false;
        message = "clan-discovery: ${message}";
      }) (lib.concatLists (lib.mapAttrsToList guard.complaintsOf receive.guarded));
    }
  ];
}
