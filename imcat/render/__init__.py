"""Sources as sums of Gaussians, drawn on images and in batches of stamps."""
