"""OP-GAN (Hinz et al. 2022): object pathways in the generator and the discriminators."""
