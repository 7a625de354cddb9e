"""One configuration file per method; presets by suffix, as in configs/stylegan_t.py:lite64."""
