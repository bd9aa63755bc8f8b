{
  derivation = {
    name = "x";
    outPath = "/nix/store/x";
    type = "derivation";
  };
  empty = {
    "in" = [ [ ] ];
    in-in = [
      [ [ ] ]
    ];
    list = [ ];
    set = { };
    sets = [
      { }
      { }
    ];
  };
  functor = {
    __functor = 1;
    __toString = "x";
    outPath = {
      outPath = "x";
    };
  };
  names = {
    "" = 0;
    ${builtins.fromJSON "\"\\u0001\\u007f\""} = 23;
    "\n" = 21;
    "\r\n" = 22;
    "\"" = 6;
    "# a" = 27;
    "$" = 10;
    "$$\${" = 3;
    "$\${x}" = 2;
    "$1" = 11;
    "\${x}" = 1;
    "''" = 4;
    "''\${x}" = 5;
    "-a" = 16;
    "/a" = 19;
    "1a" = 17;
    "\\" = 7;
    "\\\${x}" = 9;
    "\\n" = 8;
    _ = 18;
    __functor = 40;
    __toString = 39;
    "a\tb" = 20;
    "a b" = 13;
    a' = 15;
    a-b = 14;
    "a.b" = 12;
    "assert" = 31;
    "else" = 30;
    "if" = 28;
    "in" = 34;
    "inherit" = 36;
    "let" = 33;
    null = 44;
    "or" = 37;
    outPath = 38;
    "rec" = 35;
    recurseForDerivations = 42;
    "then" = 29;
    true = 43;
    type = 41;
    "with" = 32;
    "é" = 25;
    ${builtins.fromJSON "\"\\u2028\""} = 24;
    "🧪" = 26;
  };
  negative = {
    one = -1;
    smallest = -9223372036854775807 - 1;
    subnormal = -2.2250738585072014e-308 / 4503599627370496;
    zero = -1 * 0.0;
  };
  numbers = [
    0
    (-1)
    9223372036854775807
    (-9223372036854775807 - 1)
    0.0
    (-1 * 0.0)
    1.0
    (-1.5)
    0.1
    1.0e-05
    1.0e+16
    1.0e+300
    (-1.0e+300)
    1.7976931348623157e+308
    2.2250738585072014e-308
    (2.2250738585072014e-308 / 4503599627370496)
    (-2.2250738585072014e-308 / 4503599627370496)
  ];
  one = {
    list = [
      [ "a" ]
    ];
    negative = [ (-1) ];
    set = [
      {
        a = 1;
      }
    ];
    sum = [ (-9223372036854775807 - 1) ];
    text = [ "a" ];
  };
  plain = [
    null
    true
    false
  ];
  texts = [
    ""
    "\${x}"
    "$\${x}"
    "$$\${"
    "''"
    "''\${x}"
    "\""
    "\\"
    "\\n"
    "\\\${x}"
    "$"
    "$1"
    "a.b"
    "a b"
    "a-b"
    "a'"
    "-a"
    "1a"
    "_"
    "/a"
    "a\tb"
    "\n"
    "\r\n"
    (builtins.fromJSON "\"\\u0001\\u007f\"")
    (builtins.fromJSON "\"\\u2028\"")
    "é"
    "🧪"
    "# a"
  ];
  width = {
    empty = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = [ ];
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb =
        [ ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" = { };
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" =
        { };
    };
    in-a-list = [
      [ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" ]
      [
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
      ]
      [ "üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü" ]
      [ "🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪🧪" ]
    ];
    list = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = [
        1
        2
      ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        [
          1
          2
        ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        [
          {
            "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
              [
                1
                2
              ];
          }
        ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" = [
        1
        2
      ];
    };
    list-of-one = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = [ "a" ];
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = [
        "a"
      ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" = [ "a" ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        [ "a" ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        [ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        [
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" = [
        "a"
      ];
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" = [
        "a"
      ];
    };
    negative = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = -1;
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb =
        -1;
    };
    number = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = 1;
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb =
        1;
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" = 1;
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" =
        1;
    };
    set = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = {
        a = 1;
      };
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        {
          a = {
            b = [ 1 ];
          };
        };
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" = {
        a = 1;
      };
    };
    sum = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = -9223372036854775807 - 1;
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = -9223372036854775807 - 1;
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb =
        -9223372036854775807 - 1;
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb =
        -9223372036854775807 - 1;
    };
    text = {
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = "a";
      bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" = "a";
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q" =
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
      "q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q q qq" =
        "a";
    };
  };
}
