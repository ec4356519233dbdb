"""Skies with truth: populations, scenes, lenses, the detector, and twins of real tiles."""
