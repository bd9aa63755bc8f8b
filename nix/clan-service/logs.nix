# A machine in the role logs: the store of the logs that agents send.
{ common, view }:
{ ... }:
{ }
