"""The command line: a coat over the library. One file for each command, with `add` and `run`.

Results go to stdout, everything else to stderr; `run` returns the exit code (DESIGN 4.2).
"""
