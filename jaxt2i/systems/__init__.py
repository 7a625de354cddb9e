"""The systems: a folder each, found by name."""
