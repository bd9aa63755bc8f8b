"""Read clan's JSON: the inventory, merged settings, and exports."""
