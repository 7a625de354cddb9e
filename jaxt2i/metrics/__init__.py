"""Scores of images and of image-text pairs."""
