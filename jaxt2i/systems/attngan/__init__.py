"""AttnGAN and AttnDCGAN."""
