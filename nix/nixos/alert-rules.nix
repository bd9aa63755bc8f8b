# The shipped alert rules with the changes of the options, and what is wrong with these changes.
{ lib, cd }:
let
  shipped = lib.importJSON ../../clan_discovery/data/alerts.json;
  isAlert = rule: rule ? alert;
  names = map (rule: rule.alert) (lib.filter isAlert shipped);
  suggest = import ./suggest.nix { inherit lib; };

  complaintsOfOne =
    name: rule:
    if !lib.elem name names then
      [ ": unknown alert: ${suggest name names "the alerts are ${lib.concatStringsSep ", " names}"}" ]
    else
      lib.optional (
        rule.for != null && cd.service.milliseconds rule.for == null
      ) ".for: '${rule.for}' is not a duration: write for example 5m or 1h30m"
      ++ map (label: ".labels: '${label}' is not a label name: use letters, digits and underscores") (
        lib.filter (label: !cd.isLabel label) (lib.attrNames rule.labels)
      );
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
      metric = "clan_discovery_expected";
      matchers = lib.concatStringsSep "," (
        lib.optional (machine != null) "machine=\"${machine}\""
        ++ lib.optional (!pushed) "delivery!=\"push\""
      );
      own =
        rule:
        rule
        // lib.optionalAttrs (matchers != "") {
          expr = lib.replaceStrings [ "${metric}{" ] [ "${metric}{${matchers}," ] rule.expr;
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
      written =
        rule:
        lib.pipe
          (removeAttrs rule [
            "comment"
            "interval"
          ])
          [
            own
            patient
            changed
          ];
      often = lib.partition (rule: !rule ? interval) shipped;
      # Rules that read much are in a group of their own.
      slow = lib.concatMap (
        rule:
        lib.optional (written rule != [ ]) {
          name = "clan-discovery-${rule.interval}";
          inherit (rule) interval;
          rules = written rule;
        }
      ) often.wrong;
    in
    [
      {
        name = "clan-discovery";
        rules = lib.concatMap written often.right;
      }
    ]
    ++ slow;

  # withoutRecords : [ group ] -> [ group ]: vmalert refuses recording rules without `remoteWrite.url`.
  withoutRecords =
    groups:
    let
      records = lib.filter (rule: !isAlert rule) (lib.concatMap (group: group.rules) groups);
      inlined = lib.replaceStrings (map (rule: rule.record) records) (
        map (rule: "(${rule.expr})") records
      );
    in
    map (
      group:
      group
      // {
        rules = map (rule: rule // { expr = inlined rule.expr; }) (lib.filter isAlert group.rules);
      }
    ) groups;
}
