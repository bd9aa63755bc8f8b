"""Clan's JSON: bytes in, what the inventory declares out."""
