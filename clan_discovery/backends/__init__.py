"""Ask one source each for the addresses of machines.

A backend that asks has two modules: one does the I/O, and a pure one (`*_wire`) interprets the answer. `static` returns
what the config lists.
"""
