"""Pretrained perception: text towers, image towers, feature networks."""
