# The package, with nixpkgs's Python. It runs the tests that need neither servers nor a network.
{
  lib,
  stdenv,
  installShellFiles,
  python3Packages,
  versionCheckHook,
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

  # Files of tests that pass in a build: without servers, and without sockets in directories with long names (macOS).
  # `make test` runs them all.
  tests = [
    "broken_input"
    "config"
    "config_mistakes"
    "dns_cache"
    "emit"
    "explain"
    "exports"
    "history"
    "inventory"
    "loss_guard"
    "machines"
    "metrics"
    "names"
    "networks"
    "outages"
    "places"
    "relabel"
    "render"
    "resolve"
    "scrape_config"
    "snapshot"
    "status"
    "web_app"
    "yaml_inventory"
  ];
in
python3Packages.buildPythonApplication {
  pname = "clan-discovery";
  inherit version;
  pyproject = true;

  # A test that the build does not run does not change the package.
  src = lib.sourceByRegex ../. [
    "LICENSE"
    "README\\.md"
    "pyproject\\.toml"
    "(clan_discovery|examples|schemas)(/.*)?"
    "tests"
    "tests/(__init__|conftest)\\.py"
    "tests/(data|support)(/.*)?"
    "tests/test_(${lib.concatStringsSep "|" tests})\\.py"
  ];

  build-system = [ python3Packages.hatchling ];
  dependencies = [
    python3Packages.dnspython
    python3Packages.google-re2
    python3Packages.h2
    python3Packages.httpcore
    python3Packages.httpx
    python3Packages.idna
    python3Packages.jinja2
    python3Packages.markdown-it-py
    python3Packages.msgspec
    python3Packages.prometheus-client
    python3Packages.pydantic
    python3Packages.pyyaml
    python3Packages.typing-extensions
    python3Packages.waitress
    python3Packages.werkzeug
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

  nativeCheckInputs = [
    versionCheckHook
    python3Packages.hypothesis
    python3Packages.jsonschema
    python3Packages.pytest-timeout
    python3Packages.pytest-xdist
    python3Packages.pytestCheckHook
  ];
  enabledTestPaths = map (name: "tests/test_${name}.py") tests;
  # Warnings of newer dependencies are no errors here.
  pytestFlags = [ "-Wdefault" ];
  postCheck = ''
    $out/bin/clan-discovery check --config examples/static/config.yaml
  '';
  pythonImportsCheck = [ "clan_discovery" ];

  meta = {
    description = "Service discovery for clan and NixOS: the inventory is the list, the network is the address book";
    license = lib.licenses.mit;
    mainProgram = "clan-discovery";
    maintainers = [ ];
    platforms = lib.platforms.unix;
  };
}
