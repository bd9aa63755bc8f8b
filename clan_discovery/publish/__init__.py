"""The only writer: whole files, moved into place by one rename, under a lock."""
