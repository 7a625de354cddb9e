"""The procedural corpora, drawn as they are read."""
