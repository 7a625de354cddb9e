"""CRD-CGAN (Hu, Long, Xiao 2024): several pictures of a caption at once, alike in kind alone."""
