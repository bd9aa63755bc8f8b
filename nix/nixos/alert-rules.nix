# The shipped alert rules with the changes of the options, and what is wrong with these changes.
{ lib, cd }:
let
  shipped = (lib.importJSON ../../clan_discovery/data/rules.json).groups;
  isAlert = rule: rule ? alert;
  rulesOf = lib.concatMap (group: group.rules);
  names = map (rule: rule.alert) (lib.filter isAlert (rulesOf shipped));
  renamed = {
    ClanJobNotRead = "JobNotRead";
    ClanTargetDown = "TargetDown";
    ClanWrongMachine = "IdentityMismatch";
  };
  suggest = import ./suggest.nix { inherit lib; };

  complaintsOfOne =
    name: rule:
    if renamed ? ${name} then
      [ ": the alert is now called ${renamed.${name}}" ]
    else if !lib.elem name names then
      [ ": unknown alert: ${suggest name names "the alerts are ${lib.concatStringsSep ", " names}"}" ]
    else
      lib.optional (
        rule.for != null && cd.service.milliseconds rule.for == null
      ) ".for: '${rule.for}' is not a duration: write for example 5m or 1h30m"
      ++ map (label: ".labels: '${label}' is not a label name: use letters, digits and underscores") (
        lib.filter (label: !cd.isLabel label) (lib.attrNames rule.labels)
      );

  notEmpty = lib.filter (group: group.rules != [ ]);
in
rec {
  # complaintsOf : { <name> = rule; } -> [ string ]
  complaintsOf =
    rules:
    lib.concatLists (
      lib.mapAttrsToList (
        name: rule: map (what: "alerts.rules.${name}${what}") (complaintsOfOne name rule)
      ) rules
    );

  # valid : { <name> = rule; } -> { <name> = rule; }
  valid = lib.filterAttrs (name: rule: complaintsOfOne name rule == [ ]);

  # groupsOf : { rules, machine, pushed, silentAfter } -> [ group ]: a rule file of Prometheus has these groups. With a
  # machine, what it should scrape is only read from its own metrics: those of the target with this label `machine`.
  # Without `pushed`, the store does not get what agents send.
  groupsOf =
    {
      rules,
      machine,
      pushed,
      silentAfter,
      ...
    }:
    let
      # The series that a server writes of the inventory.
      metrics = [
        "clan_discovery_expected{"
        "clan_discovery_machine_info{"
        "clan_discovery_limit{"
        "clan_discovery_unit{"
        "clan_discovery_needs{"
      ];
      ofMachine = lib.optionalString (machine != null) "machine=\"${machine}\",";
      # Only these have the label `delivery`.
      notPushed = lib.optionalString (!pushed) "delivery!=\"push\",";
      own =
        rule:
        rule
        // {
          expr = lib.replaceStrings metrics (map (
            metric: "${metric}${ofMachine}${lib.optionalString (metric == lib.head metrics) notPushed}"
          ) metrics) rule.expr;
        };
      patient =
        rule:
        rule
        // lib.optionalAttrs (rule.alert or "" == "MachineSilent") {
          expr = lib.replaceStrings [ "7d" ] [ silentAfter ] rule.expr;
          annotations = lib.mapAttrs (_: lib.replaceStrings [ "7d" ] [ silentAfter ]) rule.annotations;
        };
      changed =
        rule:
        let
          change = rules.${rule.alert};
        in
        if !(isAlert rule && rules ? ${rule.alert}) then
          [ rule ]
        else
          lib.optional change.enable (
            rule
            // lib.optionalAttrs (change.for != null) { inherit (change) for; }
            // {
              labels = rule.labels // change.labels;
            }
          );
    in
    notEmpty (
      map (
        group:
        group
        // {
          rules = lib.concatMap (rule: changed (patient (own rule))) group.rules;
        }
      ) shipped
    );

  # withoutRecords : [ group ] -> [ group ]: vmalert refuses recording rules without `remoteWrite.url`.
  withoutRecords =
    groups:
    let
      records = lib.listToAttrs (
        map (rule: lib.nameValuePair rule.record rule.expr) (
          lib.filter (rule: !isAlert rule) (rulesOf groups)
        )
      );
      # The matchers of a record, as in clan:limit{name="cpu_percent"}, are those of the series that it reads. They have
      # an instance; records do not.
      moved = lib.replaceStrings [ "instance=\"\"," "instance=\"\"" ] [ "" "" ];
      inlined =
        expr:
        lib.concatMapStrings (
          part:
          if lib.isString part then
            part
          else
            let
              given = moved (toString (lib.elemAt part 2));
              matchers = if given == "" then "" else "${given},";
            in
            "(${lib.replaceStrings [ "clan_pushed=" ] [ "${matchers}clan_pushed=" ] records.${lib.head part}})"
        ) (builtins.split "(clan:[a-z]+)([{]([^}]*)[}])?" expr);
    in
    notEmpty (
      map (
        group:
        group
        // {
          rules = map (rule: rule // { expr = inlined rule.expr; }) (lib.filter isAlert group.rules);
        }
      ) groups
    );
}
