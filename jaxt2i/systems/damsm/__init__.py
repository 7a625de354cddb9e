"""DAMSM: the encoders that AttnGAN and its kin read through."""
