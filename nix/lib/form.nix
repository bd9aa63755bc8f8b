# A text as a form writes it (application/x-www-form-urlencoded), byte by byte: as Python's `urlencode`.
#
# Nix has no number of a byte. But JSON gives every character by number, and a character's first byte, or its second one,
# is the byte that is wanted.
let
  inherit (builtins)
    concatMap
    fromJSON
    genList
    map
    replaceStrings
    substring
    ;

  digit = n: substring n 1 "0123456789ABCDEF";
  hex = n: digit (n / 16) + digit (n - (n / 16) * 16);
  code = n: fromJSON "\"\\u${hex (n / 256)}${hex (n - (n / 256) * 256)}\"";

  entry = n: byte: {
    inherit byte;
    written = "%${hex n}";
  };
  from =
    first: last: f:
    genList (i: entry (first + i) (f (first + i))) (last - first + 1);
  plain =
    n:
    n >= 48 && n <= 57
    || n >= 65 && n <= 90
    || n >= 97 && n <= 122
    || n == 45
    || n == 46
    || n == 95
    || n == 126;
  ascii = concatMap (
    n:
    if plain n then
      [ ]
    else if n == 32 then
      [
        {
          byte = " ";
          written = "+";
        }
      ]
    else
      [ (entry n (code n)) ]
  ) (genList (i: i + 1) 127);
  # Beyond U+FFFF a character is two halves.
  high = pair: substring 0 1 (fromJSON "\"${pair}\"");

  table =
    ascii
    ++ from 128 191 (n: substring 1 1 (code n))
    ++ from 194 223 (n: substring 0 1 (code ((n - 192) * 64)))
    ++ from 224 239 (n: substring 0 1 (code (if n == 224 then 2048 else (n - 224) * 4096)))
    ++ [
      (entry 240 (high "\\ud800\\udc00"))
      (entry 241 (high "\\ud8c0\\udc00"))
      (entry 242 (high "\\ud9c0\\udc00"))
      (entry 243 (high "\\udac0\\udc00"))
      (entry 244 (high "\\udbc0\\udc00"))
    ];
in
replaceStrings (map (e: e.byte) table) (map (e: e.written) table)
