"""The resident mode (`run`): the loop, its triggers, its log, and its messages to systemd."""
