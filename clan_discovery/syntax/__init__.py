"""Forms of text that several packages share: durations, endpoints, label names, suggestions."""
