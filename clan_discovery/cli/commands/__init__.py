"""One file per command. Each defines `COMMAND`; only the named command is imported."""
