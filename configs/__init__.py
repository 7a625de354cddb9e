"""One configuration file per method; presets by suffix, as in stylegan_t:lite64."""
