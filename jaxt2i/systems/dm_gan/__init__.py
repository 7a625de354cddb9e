"""DM-GAN."""
