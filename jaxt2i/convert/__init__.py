"""PyTorch state dicts to Flax variables and back, by one rename table per network."""
