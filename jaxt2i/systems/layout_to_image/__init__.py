"""Layout to image (after Liang et al. 2022): a GAN that is told of each object what words say."""
