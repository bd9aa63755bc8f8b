"""The command line: a thin layer over the library.

Results go to stdout, everything else to stderr. A command returns its exit code.
"""
