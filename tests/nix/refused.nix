# Settings that an assertion refuses at evaluation, and that Python refuses too: what each says of them.
{
  exporter = [
    {
      settings.params.module = [
        "if_mib"
        "system"
      ];
      says = "'module' must be one string";
    }
    {
      settings.params.a = [ ];
      says = "'a' must be one string";
    }
    {
      settings.labels.job = "x";
      says = "the label 'job' cannot be set";
    }
    {
      settings.labels.__scheme__ = "x";
      says = "the label '__scheme__' cannot be set";
    }
    {
      settings.labels."a-b" = "x";
      says = "the label 'a-b' cannot be set";
    }
    {
      settings.labels.a = 1;
      says = "'a' must be one string";
    }
    {
      settings.params."a-b" = "x";
      says = "the parameter 'a-b' cannot be written as a label";
    }
    {
      settings.scheme = "ftp";
      says = "`scheme` is http or https";
    }
    {
      settings.path = "metrics";
      says = "`path` is no path";
    }
    {
      settings.path = "/a?b=c";
      says = "`path` is no path";
    }
    {
      settings.port = 0;
      says = "0 is no port";
    }
    {
      settings.exporterType = "a/b";
      settings.port = 1;
      says = "'a/b' cannot be the name of a job";
    }
  ];
  server = [
    {
      settings.discoveryMethod = [
        "none"
        "dns"
      ];
      says = "discoveryMethod: \"none\" cannot be combined with other methods";
    }
    {
      settings.staticTargets."web servers" = [ "a:1" ];
      says = "'web servers' cannot be the name of a job";
    }
    {
      settings.dnsDiscovery."a/b".names = [ "x" ];
      says = "'a/b' cannot be the name of a job";
    }
    {
      settings.staticTargets.own = [ "a" ];
      says = "staticTargets.own: 'a' is no target";
    }
  ];
}
