"""Obj-GAN (Li et al. 2019), its image generator: `method.build` makes it of a configuration."""
