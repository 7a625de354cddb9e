"""TextControlGAN (Ku and Lee 2023): a regressor, apart from the critic, holds G to the text."""
