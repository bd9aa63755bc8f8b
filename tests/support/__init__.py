"""What the tests share: stand-ins that really listen, and ways to start real programs."""
