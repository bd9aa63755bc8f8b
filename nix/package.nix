# The package, with nixpkgs's Python. `make test` runs the tests, which need real servers.
{
  lib,
  stdenv,
  installShellFiles,
  python3Packages,
}:
let
  # The version is defined only once, in Python.
  version = lib.head (
    lib.concatLists (
      lib.filter (found: found != null) (
        map (builtins.match "__version__ = \"([^\"]+)\".*") (
          lib.splitString "\n" (builtins.readFile ../clan_discovery/__init__.py)
        )
      )
    )
  );
in
python3Packages.buildPythonApplication {
  pname = "clan-discovery";
  inherit version;
  pyproject = true;

  src = lib.sourceByRegex ../. [
    "LICENSE"
    "README\\.md"
    "pyproject\\.toml"
    "clan_discovery"
    "clan_discovery/.*"
  ];

  build-system = [ python3Packages.hatchling ];
  dependencies = [
    python3Packages.dnspython
    python3Packages.h2
    python3Packages.httpcore
    python3Packages.httpx
    python3Packages.idna
    python3Packages.msgspec
    python3Packages.prometheus-client
    python3Packages.pydantic
    python3Packages.pyyaml
    python3Packages.typing-extensions
  ];

  nativeBuildInputs = [ installShellFiles ];
  # The program writes them from its own parsers, so a build for another platform has none.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd clan-discovery \
      --bash <($out/bin/clan-discovery completion bash) \
      --zsh <($out/bin/clan-discovery completion zsh) \
      --fish <($out/bin/clan-discovery completion fish)
    $out/bin/clan-discovery help --man > clan-discovery.1
    installManPage clan-discovery.1
  '';

  pythonImportsCheck = [ "clan_discovery" ];
  doInstallCheck = true;
  installCheckPhase = ''
    runHook preInstallCheck
    $out/bin/clan-discovery --version | grep -F ${lib.escapeShellArg version}
    $out/bin/clan-discovery check --config ${../examples/static}/config.yaml
    runHook postInstallCheck
  '';

  meta = {
    description = "Service discovery for clan and NixOS: the inventory is the list, the network is the address book";
    license = lib.licenses.mit;
    mainProgram = "clan-discovery";
    platforms = lib.platforms.unix;
  };
}
