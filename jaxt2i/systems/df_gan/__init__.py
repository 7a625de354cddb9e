"""DF-GAN."""
