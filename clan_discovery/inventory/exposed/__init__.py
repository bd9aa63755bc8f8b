"""Read exposed services, which machines declare themselves: the NixOS option `services.clan-discovery.expose`.

`service` reads one of them, `adopt` the scrape configs that a machine has for a Prometheus of its own, and `document`
the JSON of all machines.
"""
