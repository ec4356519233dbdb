"""Generated galaxies and sky: light that a network makes, behind any PSF, on any pixels."""
