"""Recipes and loops that make the networks' weights."""
