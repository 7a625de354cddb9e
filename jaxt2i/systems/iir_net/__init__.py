"""IIR-Net."""
