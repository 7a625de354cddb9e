"""The networks of latent diffusion in the sizes and names of Stable Diffusion 1.x."""
