"""HTTP: the server, the target lists for http_sd, the metrics, the health and the status page."""
