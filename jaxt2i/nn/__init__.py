"""Layers shared by two methods or more; they know jax and flax only."""
