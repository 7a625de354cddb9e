"""Latent diffusion: a U-Net that removes noise from the latent of a picture, given a text."""
