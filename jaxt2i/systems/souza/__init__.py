"""Souza et al.'s single-stage GAN."""
