"""Published weights to Flax variables and back, by one rename table per network."""
