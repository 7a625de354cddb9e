"""Obj-GAN's box generator: a caption to labelled boxes."""
