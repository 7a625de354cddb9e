"""StyleGAN-T."""
