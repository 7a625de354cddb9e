"""GALIP."""
