"""Load the config from YAML or JSON into frozen models. All problems are reported at once, as file:line:column."""
