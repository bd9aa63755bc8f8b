# A machine in the role agent: it reads its own exporters and sends their metrics, and its logs, to a machine that
# receives.
{ common, view }:
{ ... }:
{ }
