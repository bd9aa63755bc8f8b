"""The config: YAML or JSON becomes frozen models; every complaint has file:line:column, and all arrive at once."""
