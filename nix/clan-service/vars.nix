# The generators of clan vars for `security`. The CA's key and the password leave the admin's machine only as what a
# machine needs: shared generators deploy nothing secret, and each machine has a generator of its own that depends on them.
{ pkgs, serverName }:
let
  # Without a CSR and a config file, so that nothing depends on the version or the platform of openssl.
  certificate = "openssl req -x509 -config /dev/null -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 -days 3650";
in
{
  ca.prometheus-ca = {
    share = true;
    files."ca.key".deploy = false;
    files."ca.crt".secret = false;
    runtimeInputs = [ pkgs.openssl ];
    script = ''
      ${certificate} -subj "/CN=Prometheus exporters" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 \
        -addext keyUsage=critical,keyCertSign \
        -keyout "$out/ca.key" -out "$out/ca.crt"
    '';
  };

  # certificate : [ unit ] -> generators
  certificate = units: {
    prometheus-certificate = {
      dependencies = [ "prometheus-ca" ];
      files."web.crt".secret = false;
      files."web.key".restartUnits = units;
      validation = { inherit serverName; };
      runtimeInputs = [ pkgs.openssl ];
      script = ''
        ${certificate} -subj "/CN=${serverName}" \
          -addext subjectAltName=DNS:${serverName} \
          -addext basicConstraints=critical,CA:FALSE \
          -addext extendedKeyUsage=serverAuth \
          -CA "$in/prometheus-ca/ca.crt" -CAkey "$in/prometheus-ca/ca.key" \
          -keyout "$out/web.key" -out "$out/web.crt"
      '';
    };
  };

  password.prometheus-password = {
    share = true;
    files.password.deploy = false;
    runtimeInputs = [ pkgs.openssl ];
    script = ''openssl rand -hex 32 > "$out/password"'';
  };

  # serverPassword : [ unit ] -> generators: the password, for a server.
  serverPassword = units: {
    prometheus-server-password = {
      dependencies = [ "prometheus-password" ];
      files.password.restartUnits = units;
      script = ''cp "$in/prometheus-password/password" "$out/password"'';
    };
  };

  # webConfig : [ unit ] -> generators: the password's hash, for exporters.
  webConfig = units: {
    prometheus-web-config = {
      dependencies = [ "prometheus-password" ];
      files."web.yml".restartUnits = units;
      runtimeInputs = [ pkgs.apacheHttpd ];
      script = ''
        entry=$(htpasswd -niB prometheus < "$in/prometheus-password/password")
        printf 'basic_auth_users:\n  prometheus: "%s"\n' "''${entry#prometheus:}" > "$out/web.yml"
      '';
    };
  };
}
