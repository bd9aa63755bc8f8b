# suggest : string -> [ string ] -> string -> string: the name of which this one may be a typo, or else the fallback.
{ lib }:
name: names: fallback:
let
  distance = lib.strings.levenshtein name;
  length = lib.stringLength name;
  # Two exchanged letters are a distance of 2.
  close = lib.filter (
    other: distance other < length && distance other <= lib.max 2 (length / 3)
  ) names;
in
if close == [ ] then fallback else "did you mean '${lib.head (lib.sortOn distance close)}'?"
