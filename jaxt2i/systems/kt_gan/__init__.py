"""KT-GAN (Tan et al. 2021): attention that words and regions hand to each other, and a teacher."""
