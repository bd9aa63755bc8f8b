"""The resident mode: the loop, what wakes it, and what it tells systemd and the log."""
