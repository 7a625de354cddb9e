"""Text to layout (Liang et al. 2022, layout bridging): a Transformer from words to boxes."""
