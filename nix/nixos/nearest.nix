# nearest : string -> [ string ] -> string or null: the name of which this one may be a typo.
{ lib }:
name: names:
let
  distance = lib.strings.levenshtein name;
  length = lib.stringLength name;
  # Two exchanged letters are a distance of 2.
  close = lib.filter (
    other: distance other < length && distance other <= lib.max 2 (length / 3)
  ) names;
in
lib.foldl' (
  best: other: if best == null || distance other < distance best then other else best
) null close
