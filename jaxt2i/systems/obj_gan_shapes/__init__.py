"""Obj-GAN's shape generator: labelled boxes to masks."""
