"""Forms of text that several packages share: endpoints, label names, suggestions."""
