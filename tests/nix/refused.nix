# Settings that both an assertion and Python refuse, with the message of each.
{
  exporter = [
    {
      settings.expose."my films".port = 8096;
      says = "expose.my films: 'my films' cannot be the name of a job";
    }
    {
      settings.expose.a = {
        port = 8096;
        path = "metrics";
      };
      says = "expose.a: `path` is \"metrics\", which is no path";
    }
    {
      settings.expose.a = {
        port = 8096;
        labels.job = "x";
      };
      says = "expose.a: the label 'job' cannot be set";
    }
    {
      settings.expose.a = {
        port = 8096;
        front.domain = "a b";
      };
      says = "expose.a: front.domain is \"a b\", which is not a domain";
    }
    {
      settings.expose = {
        a.port = 8096;
        b.port = 8096;
      };
      says = "expose: a and b have the same port 8096 and path";
    }
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
      settings.limits.disk_procent = 95;
      says = "limits.disk_procent: no alert rule reads a limit of this name: did you mean 'disk_percent'?";
    }
    {
      settings.limits.zz = 95;
      says = "limits.zz: no alert rule reads a limit of this name: known: certificate_days, ";
    }
    {
      settings.limits.disk_percent = 100.5;
      says = "limits.disk_percent: must be at most 100, not 100.5";
    }
    {
      settings.limits.clock_skew_seconds = -1;
      says = "limits.clock_skew_seconds: must be at least 0, not -1";
    }
    {
      settings.needs = [ "monitr" ];
      says = "needs: the clan has no machine 'monitr': did you mean 'monitor'?";
    }
    {
      settings.exporters.node.limits.disk_percent = 95;
      says = "exporters.node.limits is not read: it is a setting of the machine, beside `exporters`";
    }
    {
      settings.exporters.node.needs = [ "db" ];
      says = "exporters.node.needs is not read: it is a setting of the machine, beside `exporters`";
    }
    {
      settings.exporters.node.units = [ "x.service" ];
      says = "exporters.node.units is not read: it is a setting of the machine, beside `exporters`";
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
      settings.labels.__scrape_interval__ = "1m";
      says = "__scrape_interval__ and __scrape_timeout__ come together: set both";
    }
    {
      settings.labels.__scrape_timeout__ = "1m";
      says = "__scrape_interval__ and __scrape_timeout__ come together: set both";
    }
    {
      settings.labels = {
        __scrape_interval__ = "1m";
        __scrape_timeout__ = "61s";
      };
      says = "__scrape_interval__ and __scrape_timeout__ come together: __scrape_timeout__ = \"61s\" must not be longer than __scrape_interval__ = \"1m\"";
    }
    {
      settings.labels = {
        __scrape_interval__ = "one minute";
        __scrape_timeout__ = "10s";
      };
      says = "__scrape_interval__ and __scrape_timeout__ come together: __scrape_interval__ = \"one minute\" is no duration";
    }
    {
      settings.labels = {
        __scrape_interval__ = "293y";
        __scrape_timeout__ = "10s";
      };
      says = "__scrape_interval__ and __scrape_timeout__ come together: __scrape_interval__ = \"293y\" is no duration";
    }
    {
      settings.labels = "x";
      says = "`labels` must be an attribute set of strings";
    }
    {
      settings.params = [ "x" ];
      says = "`params` must be an attribute set of strings";
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
      says = "invalid port 0: must be 1 to 65535";
    }
    {
      settings.exporterType = "a/b";
      settings.port = 1;
      says = "'a/b' cannot be the name of a job";
    }
    {
      settings.enable = "yes";
      says = "`enable` must be true or false";
    }
    {
      settings.exporters.node.exporterType = "nginx";
      says = "exporters.node.exporterType does not belong here: the type is 'node'";
    }
    {
      settings.exporters.blackbox.target = 5;
      says = "`target` must be a string";
    }
    {
      settings.exporterType = "snmp";
      settings.target = "10.0.0.1";
      settings.module = 4;
      says = "`module` must be a string";
    }
  ];
  server = [
    {
      settings.scrapeServers = true;
      settings.port = 0;
      says = "port: invalid port 0: must be 1 to 65535";
    }
    {
      settings.enable = "no";
      says = "`enable` must be true or false";
    }
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
    {
      settings.staticTargets.node = [ "a..b:80" ];
      says = "staticTargets.node: 'a..b:80' is no target";
    }
    {
      settings.staticTargets.node = [ "1::2::3" ];
      says = "staticTargets.node: '1::2::3' is no target";
    }
    {
      settings.staticTargets.node = [ "[:::::]:80" ];
      says = "staticTargets.node: '[:::::]:80' is no target";
    }
    {
      settings.staticTargets.blackbox = [ "x:9115" ];
      says = "'x:9115' is no target: write host:port, and set exporters.blackbox.params.target";
    }
  ];
}
