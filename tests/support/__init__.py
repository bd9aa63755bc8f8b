"""What the tests share: servers that stand in for real ones, and helpers that start real programs."""
