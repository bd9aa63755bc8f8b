"""HTTP: the server, the target lists for http_sd, the metrics and the health."""
