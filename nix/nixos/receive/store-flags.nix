# The flags of a VictoriaMetrics that stores what agents send: what they send again, because an answer was lost, is stored
# once, and a busy store loses nothing that it has acknowledged when it stops.
[
  "-dedup.minScrapeInterval=1ms"
  "-http.maxGracefulShutdownDuration=1m"
]
