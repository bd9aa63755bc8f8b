# Service manifests: what clan-discovery reads of one, so that nothing else gets into the store.
#
#   pkgs.writeText "service-manifest.json" (builtins.toJSON (cd.manifest.public (import ./service-manifest.nix)))
let
  inherit (builtins) intersectAttrs isAttrs mapAttrs;

  names =
    fields:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = null;
      }) fields
    );
  only = fields: intersectAttrs (names fields);
  # Applies a function to one attribute, if it is there.
  within =
    name: change: attrs:
    if attrs ? ${name} then attrs // { ${name} = change attrs.${name}; } else attrs;
  attrset =
    where: change: value:
    if isAttrs value then
      change value
    else
      throw "clan-discovery: manifest.public: ${where} must be an attrset";
  # A value that may be short: `auth = "forward_auth"`, `ports = [ 80 ]`.
  ifAttrs = change: value: if isAttrs value then change value else value;

  auth = ifAttrs (
    value:
    within "oidc" (ifAttrs (only [ "redirect_uris" ])) (
      only [
        "type"
        "oidc"
      ] value
    )
  );
  proxyFields = [
    "auth"
    "authz"
    "domain"
    "extra_config"
    "path"
    "port"
    "upstream"
  ];
  oneProxy = proxy: within "auth" auth (only proxyFields proxy);
  # One proxy has texts at these names, named ones have attrsets.
  isOne =
    proxy:
    builtins.any (name: proxy ? ${name} && !isAttrs proxy.${name}) [
      "domain"
      "path"
      "port"
      "upstream"
    ];
  proxy =
    where: value:
    if isOne value then oneProxy value else mapAttrs (name: attrset "${where}.${name}" oneProxy) value;
  interface =
    where: value:
    within "auth" auth (
      within "health"
        (attrset "${where}.health" (only [
          "liveness"
          "readiness"
          "startup"
        ]))
        (
          within "proxy" (attrset "${where}.proxy" (proxy "${where}.proxy")) (
            only [
              "auth"
              "health"
              "proxy"
            ] value
          )
        )
    );
  service =
    where: value:
    within "interface" (attrset "${where}.interface" (interface "${where}.interface")) (
      only [
        "depends_on"
        "enable"
        "hostname"
        "interface"
        "ip"
        "ports"
      ] value
    );
  section =
    where: attrset where (mapAttrs (name: attrset "${where}.${name}" (service "${where}.${name}")));
in
{
  # public : manifest -> manifest
  # Keeps only the fields that `inventory.manifest` reads.
  public =
    manifest:
    within "network" (attrset "network" (only [ "domain" ])) (
      within "core_services" (section "core_services") (
        within "services" (section "services") (
          only [
            "core_services"
            "network"
            "services"
          ] manifest
        )
      )
    );
}
