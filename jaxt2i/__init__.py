"""jaxt2i: text-to-image synthesis in JAX."""

__version__ = "0.1.0"
