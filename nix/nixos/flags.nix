# The flags of a program as a list of strings: what they say.
{ lib }:
let
  # A flag may be one string or two, or a string with several: the units of some scrapers do not quote.
  wordsOf =
    flags:
    lib.filter (word: lib.isString word && word != "") (
      lib.concatMap (builtins.split "[[:space:]]+") (lib.filter lib.isString flags)
    );
  isFlag = name: flag: builtins.match "--?${lib.escapeRegex name}.*" flag != null;
in
{
  # valueOf : [ flag ] -> string -> string or null: the value of the last `-name=value`, `--name=value` or `--name value`.
  valueOf =
    flags: name:
    let
      words = wordsOf flags;
      isName = word: builtins.match "--?${lib.escapeRegex name}" word != null;
      found = lib.concatLists (
        lib.zipListsWith (
          before: word:
          let
            said = builtins.match "--?${lib.escapeRegex name}=(.*)" word;
          in
          if said != null then said else lib.optional (isName before) word
        ) ([ "" ] ++ words) words
      );
    in
    if found == [ ] then null else lib.last found;
  # hasFlag : [ flag ] -> [ string ] -> bool: whether one begins like one of the names.
  hasFlag = flags: names: lib.any (name: lib.any (isFlag name) (wordsOf flags)) names;
}
