"""Transformers for stamps with any set of bands, and their pre-training."""
