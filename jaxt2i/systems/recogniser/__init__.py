"""A recogniser of the procedural corpora."""
