# What is a host: an IPv6 address, or what could be a name in DNS or an IPv4 address. Python's `endpoint.py` says the same.
let
  inherit (builtins)
    all
    concatMap
    elemAt
    filter
    head
    isString
    length
    match
    split
    stringLength
    substring
    ;

  parts = separator: text: filter isString (split separator text);

  # Eight groups of four digits at the most, `::` once for some that are zero, the last two perhaps as IPv4.
  isV6 =
    text:
    let
      halves = parts "::" text;
      groups = concatMap (half: if half == "" then [ ] else parts ":" half) halves;
      count = length groups;
      last = elemAt groups (count - 1);
      ends = substring (stringLength text - 2) 2 text == "::";
      dotted = count > 0 && !ends && isV4 last;
      plain = if dotted then filter (group: group != last) groups else groups;
      size = if dotted then length plain + 2 else count;
    in
    match ".*:.*" text != null
    && all (group: match "[0-9a-fA-F]{1,4}" group != null) plain
    && (if length halves == 1 then size == 8 else length halves == 2 && size <= 7)
    && (!dotted || length plain == count - 1);
  isV4 =
    text:
    let
      numbers = match "([0-9]{1,3})\\.([0-9]{1,3})\\.([0-9]{1,3})\\.([0-9]{1,3})" text;
    in
    numbers != null
    && all (number: match "0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5]" number != null) numbers;

  label = "[A-Za-z0-9_][A-Za-z0-9_-]*";
  isName =
    text:
    match "${label}(\\.${label})*\\.?" text != null
    && all (part: stringLength part <= 63) (parts "\\." text);
in
{
  # isHost : string -> bool
  isHost = text: stringLength text <= 253 && (isName text || isV6 text);

  inherit isV6;

  # isElsewhere : string -> bool
  # Whether this leads to another machine: the loopback, addresses of one link and of groups do not, wherever they stand.
  isElsewhere =
    text:
    match "[lL][oO][cC][aA][lL][hH][oO][sS][tT]\\.*|127\\.[0-9.]+|0\\.[0-9.]+|169\\.254\\.[0-9.]+|2(2[4-9]|3[0-9])\\.[0-9.]+" text
    == null
    && !(
      isV6 text
      &&
        match "[0:]*:1?|[fF][eE][89aAbB][0-9a-fA-F]:.*|[fF][fF][0-9a-fA-F]{2}:.*|[0:]*:[fF]{4}:.*" text
        != null
    );

  # joined : string -> int -> string
  joined =
    host: port:
    if match ".*:.*" host != null then "[${host}]:${toString port}" else "${host}:${toString port}";
}
