"""One file per system: its networks, losses, players, sampler and `build`."""
