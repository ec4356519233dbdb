"""Trained weights: one ``.safetensors`` file and one card (``.toml``) per model, read as package resources."""
