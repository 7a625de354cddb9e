"""CLIP, trained on captioned pictures."""
